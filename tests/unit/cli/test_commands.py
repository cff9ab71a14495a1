"""The commands before anything is started: help, versions, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from frazil.agent.__main__ import AgentSettings
from frazil.cli import main
from frazil.cli.services import UpSettings
from frazil.io.mrc import write_mrc
from frazil.rpc.config import read_section, read_toml
from frazil_ingest.follow import IngestSettings
from frazil_scheduler.config import Settings as SchedulerSettings

COMMANDS = [
    "demo", "run", "up", "simulate", "doctor", "export",
    "session create", "session set", "session start", "session pause", "session complete", "session list", "session show",
    "session watch", "session export", "session retry", "session clone", "session delete", "session plan", "session compute",
    "session switch",
    "session start-job", "session stop-job", "exposure list", "exposure reject", "exposure accept", "exposure thresholds",
    "exposure test", "profile list", "profile save", "profile apply", "profile delete",
    "lane list", "lane create", "lane update", "lane delete", "node list", "node fence",
    "gpu list", "gpu drain", "gpu quarantine", "gpu clear",
    "job list", "job show", "job explain", "job cancel", "job submit", "job priority", "job kill", "job requeue",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("frazil 0.")


def test_help_imports_neither_grpc_nor_numpy() -> None:
    code = "import sys; import frazil.cli.app; print(sorted({'grpc', 'numpy', 'rich', 'google'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """A folder with one small movie of 24 x 32 px."""
    folder = tmp_path / "movies"
    (folder / "square").mkdir(parents=True)
    write_mrc(folder / "square" / "a.mrc", np.ones((4, 24, 32), dtype=np.uint8), 1.0, image_stack=True)
    return folder


def refuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that is refused; returns its one sentence."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1, error
    return error


def arguments(movies: Path, output: Path, *more: str) -> list[str]:
    return ["run", str(movies), "--output", str(output), "--particle-diameter", "140", *more]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--pixel-size", "0"], "--pixel-size is 0"),
        (["--pixel-size", "-1.06"], "--pixel-size is -1.06"),
        (["--pixel-size", "106"], "--pixel-size is 106"),
        (["--pixel-size", "nan"], "--pixel-size is nan"),
        (["--voltage", "300000"], "300, not 300000"),
        (["--amplitude-contrast", "10"], "a fraction"),
        (["--dose-per-frame", "0"], "--dose-per-frame"),
        (["--particle-diameter", "0"], "--particle-diameter"),
        (["--particle-diameter-max", "100"], "between 140"),
        (["--box", "255"], "use 256"),
        (["--box", "128", "--output-box", "256"], "--output-box is larger"),
        (["--classes", "0"], "--classes"),
        ([], "--pixel-size"),  # nothing beside the movie tells it
        (["--pixel-size", "1", "--gain", "nowhere.mrc"], "There is no gain reference"),
        (["--pixel-size", "1", "--defects", "nowhere.txt"], "There is no defect file"),
        (["--pixel-size", "1", "--movies", "*.eer"], "no movies"),
    ],
)
def test_a_wrong_value_is_one_sentence(
    more: list[str], word: str, movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert word in refuse(arguments(movies, tmp_path / "out", *more), capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none(movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no folder" in refuse(arguments(tmp_path / "absent", tmp_path / "out"), capsys)
    assert "is a file" in refuse(arguments(movies / "square" / "a.mrc", tmp_path / "out"), capsys)
    (tmp_path / "empty").mkdir()
    assert "There are no movies" in refuse(arguments(tmp_path / "empty", tmp_path / "out"), capsys)


def test_a_gain_that_does_not_fit(movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gain = tmp_path / "gain.mrc"
    gain.write_bytes(b"no gain")
    assert "gain.mrc" in refuse(arguments(movies, tmp_path / "out", "--pixel-size", "1", "--gain", str(gain)), capsys)
    write_mrc(gain, np.ones((32, 24), dtype=np.float32), 1.0)
    sentence = refuse(arguments(movies, tmp_path / "out", "--pixel-size", "1", "--gain", str(gain)), capsys)
    assert "24 x 32 px but the movies are 32 x 24 px" in sentence
    defects = tmp_path / "defects.txt"
    defects.write_text("0 0 1 400\n")
    sentence = refuse(arguments(movies, tmp_path / "out", "--pixel-size", "1", "--defects", str(defects)), capsys)
    assert "reaches beyond the frame" in sentence


def test_an_output_that_would_do_harm(movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(movies.rglob("*"))
    assert "never written to" in refuse(arguments(movies, movies / "out"), capsys)
    assert "never written to" in refuse(arguments(movies, movies), capsys)
    assert sorted(movies.rglob("*")) == before
    shutil.copytree(movies, tmp_path / "project" / "micrographs")
    assert "would mix" in refuse(arguments(tmp_path / "project" / "micrographs", tmp_path / "project"), capsys)
    (tmp_path / "file").write_text("")
    assert "is a file" in refuse(arguments(movies, tmp_path / "file"), capsys)
    (tmp_path / "relion").mkdir()
    (tmp_path / "relion" / "micrographs.star").write_text("")
    assert "not made by this command" in refuse(arguments(movies, tmp_path / "relion"), capsys)


def test_an_output_that_cannot_be_written(
    movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frazil.cli.checks.os.access", lambda path, _: "locked" not in str(path))
    (tmp_path / "locked").mkdir()
    assert "may not write" in refuse(arguments(movies, tmp_path / "locked" / "out"), capsys)
    monkeypatch.setattr("frazil.cli.checks.shutil.disk_usage", lambda _: SimpleNamespace(free=2**28))
    assert "Only 256 MiB are free" in refuse(arguments(movies, tmp_path / "out"), capsys)


def test_simulate_checks_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scope"
    assert "must not lie" in refuse(["simulate", str(out), "--truth", str(out / "truth")], capsys)
    assert "--bad is 3" in refuse(["simulate", str(out), "--movies", "2", "--bad", "3"], capsys)
    assert not out.exists()


def test_a_wrong_label_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["session", "create", "grid", str(tmp_path), "--particle-diameter", "140", "--label", "visit"]
    assert "KEY=VALUE" in refuse(create, capsys)


def test_a_scheduler_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lane", "list", "--scheduler", "127.0.0.1:9"]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "127.0.0.1:9" in error
    assert "frazil up" in error


def test_up_refuses_a_configuration_it_does_not_understand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "frazil.toml"
    config.write_text("[up]\nwebport = 1\n")
    assert "webport" in refuse(["up", "--config", str(config), "--data-dir", str(tmp_path / "data")], capsys)


def test_what_was_not_foreseen_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, movies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("frazil.cli.checks.check_movie_folder", broken)
    assert main(arguments(movies, tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert error.startswith("frazil: unexpected ZeroDivisionError: division by zero.")
    assert len(error.strip().splitlines()) == 1


def test_doctor_finds_every_part_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {one["what"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"python", "libraries", "services", "processors", "memory", "gpu", "sqlite", "disk", "ledger", "lock folder"} <= set(
        findings
    )
    assert findings["python"]["state"] == "ok"
    assert all(one["advice"] for one in findings.values() if one["state"] != "ok")


def test_doctor_says_what_is_wrong_with_the_ledger(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "frazil.toml"
    config.write_text("[scheduler]\nledger = 'postgresql://frazil@127.0.0.1:1/frazil'\n")
    assert main(["doctor", "--json", "--config", str(config)]) == 1
    (ledger,) = [one for one in json.loads(capsys.readouterr().out) if one["what"] == "ledger"]
    assert ledger["state"] == "fail"
    assert ledger["advice"].startswith("Cannot use postgresql://frazil@127.0.0.1:1/frazil as the ledger: ")


def test_the_example_configuration_shows_the_defaults() -> None:
    toml = read_toml(Path(__file__).parents[3] / "frazil.example.toml")
    for settings, section in (
        (UpSettings, "up"),
        (AgentSettings, "agent"),
        (IngestSettings, "ingest"),
        (SchedulerSettings, "scheduler"),
    ):
        assert read_section(settings, section, environ={}, toml=toml) == settings()
