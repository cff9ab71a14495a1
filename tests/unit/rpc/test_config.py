from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from frazil.model.errors import FrazilError
from frazil.rpc.config import WorkerEnvironment, read_section, read_toml, scheduler_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    name: str
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    name: str = "default"
    count: int = 3
    seconds: float = 1.5
    loud: bool = False
    folder: Path | None = None
    words: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    parts: tuple[Part, ...] = ()


def test_flag_beats_environment_beats_file_beats_default() -> None:
    toml: dict[str, Any] = {"toy": {"name": "file", "count": 1, "seconds": 2}}
    environ = {"FRAZIL_TOY_NAME": "environment", "FRAZIL_TOY_COUNT": "2"}
    flags = {"name": "flag", "count": None, "unrelated": 1}
    settings = read_section(Settings, "toy", flags=flags, environ=environ, toml=toml)
    assert (settings.name, settings.count, settings.seconds, settings.loud) == ("flag", 2, 2.0, False)


def test_every_type_from_text_and_from_toml(tmp_path: Path) -> None:
    environ = {
        "FRAZIL_TOY_LOUD": "true",
        "FRAZIL_TOY_FOLDER": "/data",
        "FRAZIL_TOY_WORDS": "a, b,",
        "FRAZIL_TOY_NUMBERS": "1,2",
    }
    expected = {"loud": True, "folder": Path("/data"), "words": ("a", "b"), "numbers": (1, 2)}
    assert read_section(Settings, "toy", environ=environ) == Settings(**expected)  # type: ignore[arg-type]
    file = tmp_path / "frazil.toml"
    file.write_text(
        '[toy]\nloud = true\nfolder = "/data"\nwords = ["a", "b"]\nnumbers = [1, 2]\n[[toy.parts]]\nname = "x"\nsize = 2\n'
    )
    settings = read_section(Settings, "toy", environ={}, toml=read_toml(file))
    assert settings == Settings(**expected, parts=(Part(name="x", size=2),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"count": "many"}, "count in \\[toy\\] is 'many'"),
        ({"count": 2.5}, "not a valid int"),
        ({"count": True}, "not a valid int"),
        ({"name": 3}, "not a valid str"),
        ({"loud": "perhaps"}, "not a valid bool"),
        ({"numbers": ["x"]}, "not a valid int"),
        ({"parts": [{"size": 2}]}, "not a valid Part"),
        ({"parts": [{"name": "x", "colour": 2}]}, "parts in \\[toy\\] does not know colour; it knows name, size"),
        ({"coutn": 1}, "does not know coutn; it knows count"),
    ],
)
def test_wrong_values_are_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(FrazilError, match=words):
        read_section(Settings, "toy", environ={}, toml={"toy": table})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_toml(None) == {}
    with pytest.raises(FrazilError, match="No such file"):
        read_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("[x")
    with pytest.raises(FrazilError, match="no valid TOML"):
        read_toml(tmp_path / "bad.toml")


def test_scheduler_address() -> None:
    toml = {"scheduler": {"address": "a:1", "data_dir": "/x"}}
    assert scheduler_address(environ={}) == "127.0.0.1:50051"
    assert scheduler_address(environ={}, toml=toml) == "a:1"
    assert scheduler_address(environ={"FRAZIL_SCHEDULER_ADDRESS": "b:2"}, toml=toml) == "b:2"
    assert scheduler_address("c:3", environ={"FRAZIL_SCHEDULER_ADDRESS": "b:2"}, toml=toml) == "c:3"


def test_worker_environment_comes_back_as_it_was() -> None:
    environment = WorkerEnvironment(
        scheduler_address="h:1",
        lease_id="l",
        epoch=12,
        slot_key="GPU-1#0",
        device="gpu",
        memory_mib=8000,
        threads=4,
        lock_fd=5,
        gpu_uuid="GPU-1",
    )
    assert WorkerEnvironment.from_environ(environment.to_environ()) == environment
    small = WorkerEnvironment(scheduler_address="h:1", lease_id="l", epoch=1)
    assert WorkerEnvironment.from_environ(small.to_environ()) == small
    assert small.to_environ()["CUDA_VISIBLE_DEVICES"] == ""
    assert "OMP_NUM_THREADS" not in small.to_environ()


def test_worker_environment_names_what_is_missing() -> None:
    with pytest.raises(FrazilError, match="FRAZIL_LEASE_ID, FRAZIL_EPOCH"):
        WorkerEnvironment.from_environ({"FRAZIL_SCHEDULER_ADDRESS": "h:1"})
    with pytest.raises(FrazilError, match="FRAZIL_EPOCH is 'x'"):
        WorkerEnvironment.from_environ({"FRAZIL_SCHEDULER_ADDRESS": "h:1", "FRAZIL_LEASE_ID": "l", "FRAZIL_EPOCH": "x"})
