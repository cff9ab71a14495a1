"""How services are started, and what becomes of their ports; the demo's folder."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from frazil.agent.inventory import Gpu
from frazil.agent.nvml import Nvml
from frazil.cli.demo import prepare_folder
from frazil.cli.services import Deployment, find_program, free_port, ledger_for, node_id_for, require_free_port, slot_layout
from frazil.cli.simulate import bad_movies
from frazil.model.errors import FrazilError

EVERYWHERE = "0.0.0.0"  # noqa: S104


def commands(deployment: Deployment) -> dict[str, list[str]]:
    return {service.name: list(service.command()) for service in deployment.services()}


def test_the_scheduler_keeps_the_port_that_it_was_given(tmp_path: Path) -> None:
    deployment = Deployment(data_dir=tmp_path)
    assert [service.name for service in deployment.services()] == ["scheduler", "ingest", "agent"]
    assert commands(deployment)["scheduler"][-1] == "127.0.0.1:0"
    (tmp_path / "scheduler.address").write_text("127.0.0.1:4711\n")
    assert deployment.scheduler_address == "127.0.0.1:4711"
    (tmp_path / "scheduler.address").unlink()
    assert commands(deployment)["scheduler"][-1] == "127.0.0.1:4711"  # after a crash, where its clients look
    assert commands(deployment)["ingest"][1:] == ["--scheduler", "127.0.0.1:4711"]


def test_every_option_reaches_its_program(tmp_path: Path) -> None:
    config = tmp_path / "frazil.toml"
    deployment = Deployment(
        data_dir=tmp_path, host=EVERYWHERE, port=1, web_port=2, cpu_slots=3, slots_per_gpu=2, node_id="me", config=config
    )
    found = commands(deployment)
    assert found["scheduler"][1:] == ["--data-dir", str(tmp_path), "--address", f"{EVERYWHERE}:1", "--config", str(config)]
    assert found["agent"][1:] == [
        *("--scheduler", "127.0.0.1:1", "--config", str(config)),
        *("--cpu-slots", "3", "--slots-per-gpu", "2", "--node-id", "me"),
    ]
    assert found["web"][1:] == ["--scheduler", "127.0.0.1:1", "--address", f"{EVERYWHERE}:2"]
    assert deployment.web_address == "http://127.0.0.1:2"


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FrazilError) as raised:
            Deployment(data_dir=tmp_path, port=port).prepare()
    assert raised.value.reason == "PORT_IN_USE"
    assert "--port" in raised.value.sentence
    require_free_port("127.0.0.1", free_port("127.0.0.1"), "--port")


def test_a_program_that_is_missing_is_named() -> None:
    assert Path(find_program("frazil-agent")).name == "frazil-agent"
    with pytest.raises(FrazilError) as raised:
        find_program("frazil-nonsense")
    assert "frazil-nonsense" in raised.value.sentence


def test_two_data_folders_have_two_agents(tmp_path: Path) -> None:
    assert node_id_for(tmp_path / "a") != node_id_for(tmp_path / "b")
    assert node_id_for(tmp_path / "a") == node_id_for(tmp_path / "b" / ".." / "a")


def test_a_ledger_keeps_off_network_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger_for(tmp_path) is None
    kinds = {"share": "nfs4", "home": "ext4"}
    monkeypatch.setattr("frazil.cli.services.file_system_of", lambda path: kinds[path.relative_to(tmp_path).parts[0]])
    ledger = ledger_for(tmp_path / "share" / "a", home=tmp_path / "home")
    assert ledger is not None
    assert ledger.is_relative_to(tmp_path / "home")
    assert ledger.parent.is_dir()
    assert ledger == ledger_for(tmp_path / "share" / "a", home=tmp_path / "home")
    assert ledger != ledger_for(tmp_path / "share" / "b", home=tmp_path / "home")
    assert commands(Deployment(data_dir=tmp_path, ledger=ledger))["scheduler"][3:5] == ["--ledger", str(ledger)]


@pytest.mark.parametrize(
    ("memories", "workers", "expected"),
    [
        ([], None, (1, 2, None)),  # 4 cores: one worker and the classification
        ([], 3, (3, 4, None)),
        ([81_000], None, (1, None, 2)),  # a large card does both
        ([11_000], None, (1, None, 1)),  # a small one does one after the other
        ([24_576, 24_576, 24_576], None, (2, None, 1)),
        ([24_576, 24_576], 5, (5, None, 1)),
    ],
)
def test_a_machine_is_divided_for_one_session(
    memories: list[int], workers: int | None, expected: tuple[int, int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = tuple(Gpu(uuid=f"GPU-{n}", name="card", memory_mib=mib, index=n) for n, mib in enumerate(memories))
    monkeypatch.setattr(Nvml, "gpus", lambda _: gpus)
    monkeypatch.setattr("frazil.agent.inventory.core_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    layout = slot_layout(workers)
    assert (layout.workers, layout.cpu_slots, layout.slots_per_gpu) == expected


def test_the_demo_replaces_only_what_a_demo_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = prepare_folder(None)
    (folder / "microscope").mkdir()
    assert prepare_folder(None) == folder
    assert not (folder / "microscope").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    with pytest.raises(FrazilError) as raised:
        prepare_folder(mine)
    assert raised.value.reason == "DEMO_FOLDER_IN_USE"
    (folder / ".frazil-demo").unlink()
    (folder / "thesis.tex").write_text("")
    with pytest.raises(FrazilError):
        prepare_folder(None)
    assert (folder / "thesis.tex").exists()
    assert prepare_folder(tmp_path / "new").is_dir()


def test_bad_movies_are_spread_over_the_session() -> None:
    spoilt = bad_movies(20, 5)
    assert [movie.kind for movie in spoilt] == ["empty", "truncated", "other_shape", "garbage", "empty"]
    assert [movie.index for movie in spoilt] == [2, 6, 10, 14, 18]
    assert len({movie.index for movie in bad_movies(4, 4)}) == 4
    assert bad_movies(4, 0) == ()
