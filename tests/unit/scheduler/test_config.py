"""Flags, environment, file, defaults; every fault is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from frazil.model.errors import FrazilError
from frazil_scheduler.__main__ import read_settings
from frazil_scheduler.config import Settings
from frazil_scheduler.service import Scheduler


def test_an_empty_configuration_works() -> None:
    settings, lanes = read_settings([], {})
    assert settings == Settings()
    assert settings.address == "127.0.0.1:50051"
    assert [(lane.name, lane.backend) for lane in lanes] == [("default", "node")]


def test_a_flag_beats_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    config = tmp_path / "frazil.toml"
    config.write_text("[scheduler]\naddress = 'file:1'\ndata_dir = '/file'\nledger = '/file.sqlite'\n")
    arguments = ["--config", str(config)]
    environ = {"FRAZIL_DATA_DIR": "/environment", "FRAZIL_SCHEDULER_ADDRESS": "environment:1"}
    settings, _ = read_settings([*arguments, "--address", "flag:1"], environ)
    assert settings == Settings(address="flag:1", data_dir=Path("/environment"), ledger="/file.sqlite")


def test_lanes_come_from_the_file_and_default_is_always_there(tmp_path: Path) -> None:
    config = tmp_path / "frazil.toml"
    config.write_text('[lanes.big]\nnodes = ["gpu*"]\n')
    _, lanes = read_settings(["--config", str(config)], {})
    assert [(lane.name, lane.backend, dict(lane.options)) for lane in lanes] == [
        ("big", "node", {"nodes": ["gpu*"]}),
        ("default", "node", {}),
    ]


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[scheduler]\nadress = 'x'", "does not know adress"),
        ("[lanes.big]\nbackend = 'nodes'", "There is no lane backend 'nodes'; known are kubernetes, node, slurm."),
        ("[lanes.big]\nnode = 'gpu*'", "does not know node; it knows backend, nodes."),
        ("[lanes.big]\nnodes = 'gpu*'", "must be a list of patterns"),
        ("lanes = 3", "Lanes are tables"),
        ("lanes = ", "is no valid TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, toml: str, sentence: str) -> None:
    config = tmp_path / "frazil.toml"
    config.write_text(toml)

    def start() -> None:
        settings, lanes = read_settings(["--config", str(config), "--data-dir", str(tmp_path / "data")], {})
        Scheduler(settings, lanes)

    with pytest.raises(FrazilError) as caught:
        start()
    assert sentence in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FrazilError, match="Cannot make the data folder"):
        Scheduler(Settings(data_dir=tmp_path / "file" / "data"), [])
