"""`frazil run` with everything real: simulated movies, some bad, to the tree that scripts rely on; killed and run again."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from frazil.cli import processes
from frazil.cli.processes import MARK
from frazil.simulator import BadMovie, Delivery, SimulationParameters, write_session

FRAZIL = str(Path(sys.executable).parent / "frazil")
PARAMETERS = SimulationParameters(
    seed=3, movie_count=6, width_px=512, height_px=512, frame_count=12, particles_per_movie=12, contaminants_per_movie=0.0
)
BAD = (BadMovie(index=1, kind="empty"), BadMovie(index=4, kind="truncated"))
DIAMETER = 180


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six movies, of which one is empty and one is cut."""
    folder = tmp_path_factory.mktemp("scope") / "movies"
    write_session(PARAMETERS, folder, delivery=Delivery(bad_movies=BAD))
    return folder


@pytest.fixture
def microscope(simulated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(simulated, tmp_path / "microscope")


def command(microscope: Path, output: Path, *more: str) -> list[str]:
    arguments = [FRAZIL, "run", str(microscope), "--particle-diameter", str(DIAMETER), "--output", str(output)]
    arguments += ["--gain", str(microscope / "gain.mrc"), "--defects", str(microscope / "defects.txt")]
    return [*arguments, "--movies", "*.tiff", "--classes", "3", "--idle-seconds", "2", *more]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "FRAZIL_AGENT_LOCK_DIR": str(tmp_path / "locks"),
        "FRAZIL_INGEST_SETTLE_SECONDS": "1",
        "FRAZIL_INGEST_DEFECT_AFTER_SECONDS": "2",
        "PYTHONUNBUFFERED": "1",
        "FRAZIL_SCHEDULER_LEDGER": "postgresql://127.0.0.1:1/of-the-site",  # a run keeps a ledger of its own
    }


def fingerprint(folder: Path) -> dict[str, tuple[int, str]]:
    """Return modification time and content of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finish(arguments: list[str], environment: dict[str, str]) -> str:
    """Run to the end, successfully; returns what it printed."""
    found = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=400)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stderr == ""
    return found.stdout


def eventually(true: Callable[[], bool], *, seconds: float = 120.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not happen"
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_a_folder_becomes_the_promised_tree(microscope: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    out, before = tmp_path / "out", fingerprint(microscope)
    printed = finish(command(microscope, out), environment)
    assert "4 processed, 2 failed" in printed
    assert fingerprint(microscope) == before  # bytes and times of the microscope's folder are untouched

    rows = list(csv.DictReader((out / "exposures.csv").read_text().splitlines()))
    assert [row["verdict"] for row in rows].count("accepted") == 4
    assert all(row["reason"] for row in rows if row["verdict"] == "failed")
    micrographs = starfile.read(out / "micrographs.star")["micrographs"]
    assert len(micrographs) == 4
    for row in micrographs.itertuples():
        assert mrcfile.read(out / row.rlnMicrographName).shape == (512, 512)
        shifts = starfile.read(out / row.rlnMicrographMetadata)["global_shift"]
        assert len(shifts) == PARAMETERS.frame_count
    particles = starfile.read(out / "particles.star")["particles"]
    assert len(particles) == len(np.load(out / "particles.cs"))
    for image in particles["rlnImageName"]:
        number, _, stack = image.partition("@")
        with mrcfile.mmap(out / stack, permissive=True) as file:
            assert int(number) <= (file.data.shape[0] if file.data.ndim == 3 else 1)
    assert len(list((out / "thumbnails").glob("*.png"))) == 4
    assert (out / "report.html").is_file()
    record = json.loads((out / "session.json").read_text())
    assert record["counts"]["done"] == 4
    assert record["counts"]["particles"] == len(particles)
    classified = starfile.read(out / "class2d" / "particles.star")["particles"]
    assert set(classified["rlnImageName"]) <= set(particles["rlnImageName"])
    classes = starfile.read(out / "class2d" / "classes.star", always_dict=True)["model_classes"]
    averages = mrcfile.read(out / "class2d" / "classes.mrcs")  # of one image it makes two axes
    assert averages.reshape(-1, *averages.shape[-2:]).shape[0] == len(classes)
    assert set(classified["rlnClassNumber"]) <= set(classes["rlnClassNumber"])
    assert processes.find_marked(MARK, str(out / ".frazil")) == []

    # The same command again: nothing is started, let alone redone ...
    assert finish(command(microscope, out), environment).startswith("Nothing new in")
    # ... but what has come meanwhile is added.
    results = {path: path.stat().st_mtime_ns for path in (out / "micrographs").iterdir()}
    write_session(dataclasses.replace(PARAMETERS, movie_count=7), tmp_path / "more")
    new = sorted((tmp_path / "more").rglob("*.tiff"))[-1]
    target = microscope / new.relative_to(tmp_path / "more")
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in (new.with_name(new.name.replace("_fractions.tiff", ".xml")), new):
        path.rename(target.with_name(path.name))
    printed = finish(command(microscope, out), environment)
    assert "5 processed, 2 failed" in printed
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert json.loads((out / "session.json").read_text())["counts"]["done"] == 5

    differing = subprocess.run(command(microscope, out, "--box", "96"), capture_output=True, text=True, env=environment)
    assert differing.returncode == 2
    assert "box size px was 0, is 96" in differing.stderr


@pytest.mark.timeout(600)
def test_killed_and_run_again(microscope: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    out = tmp_path / "out"
    for spare in sorted(microscope.rglob("*.tiff"))[3:]:
        spare.unlink()
    arguments = command(microscope, out, "--until", "preprocess")
    endless = environment | {"FRAZIL_INGEST_DEFECT_AFTER_SECONDS": "600"}  # waits for more of the empty movie
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(arguments, stdout=log, stderr=log, env=endless)
    results = out / ".frazil" / "run" / "results"
    eventually(lambda: results.is_dir() and any(results.iterdir()))
    state = str((out / ".frazil").resolve())
    assert processes.find_marked(MARK, state)
    first.kill()
    first.wait()
    eventually(lambda: processes.find_marked(MARK, state) == [])  # they end without it

    with (tmp_path / "second.log").open("wb") as log:
        second = subprocess.Popen(arguments, stdout=log, stderr=log, env=endless)
    eventually(lambda: "running:" in (tmp_path / "second.log").read_text())
    second.send_signal(signal.SIGINT)
    assert second.wait(120) == 130
    assert "goes on where this ended" in (tmp_path / "second.log").read_text()
    assert processes.find_marked(MARK, state) == []

    printed = finish(arguments, environment)
    assert "2 processed, 1 failed" in printed
    assert not (out / "class2d").exists()
    rows = list(csv.DictReader((out / "exposures.csv").read_text().splitlines()))
    assert all(int(row["attempts"]) <= 2 for row in rows)
