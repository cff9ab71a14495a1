"""A session's folder as workers leave it: three movies with results, one failed, one waiting, the classes of revision 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult, MovieFile, MovieMetadata
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverage, ClassAverages
from frazil.api.session.v1.session_pb2 import Session, SessionCounts, SessionParameters
from frazil.io.export_records import SessionSnapshot
from frazil.io.mrc import write_mrc
from frazil.io.particles import ASSIGNMENT_DTYPE, PARTICLE_DTYPE, write_array, write_particles
from frazil.io.png import write_png
from frazil.io.relion import MotionSource, motion_star, picks_star
from frazil.io.star import write_star
from frazil.model.motion import Motion
from frazil.model.optics import Optics
from frazil.model.particles import Pick, half_set, particle_uid

HEIGHT, WIDTH, BOX = 48, 64, 16
MOVIES = ["square1/a movie.tiff", "square2/a movie.tiff", "square2/b.tiff"]
PARTICLES = [3, 0, 2]


@dataclass
class FakeSession:
    """The snapshot, and the folder it speaks of."""

    snapshot: SessionSnapshot
    folder: Path


@pytest.fixture
def fake(tmp_path: Path) -> FakeSession:
    folder = tmp_path / "data" / "sessions" / "grid-7"
    exposures = [done(folder, number) for number in (1, 2, 3)]
    exposures.append(
        Exposure(
            exposure_id="e4",
            number=4,
            file=MovieFile(relative_path="square2/broken.tiff"),
            state=Exposure.STATE_QUARANTINED,
            failure="broken.tiff is empty, <0 bytes>.",
        )
    )
    exposures.append(Exposure(exposure_id="e5", number=5, file=MovieFile(relative_path="new.mrc"), state=Exposure.STATE_READY))
    session = Session(
        session_id="s1",
        name="grid-7",
        state=Session.STATE_COMPLETED,
        parameters=SessionParameters(movie_folder="/data/grid7", particle_diameter_angstrom=140.0, class_count=2),
        folder=str(folder),
        counts=SessionCounts(found=5, ready=1, done=3, quarantined=1, particles=5),
    )
    return FakeSession(SessionSnapshot(session=session, exposures=exposures, classes=classes(folder), devices=["CPU"]), folder)


def table_of(number: int) -> np.ndarray:
    """Return the particles of one exposure: every value another."""
    table = np.zeros(PARTICLES[number - 1], dtype=PARTICLE_DTYPE)
    for index, row in enumerate(table):
        uid = particle_uid(f"e{number}", index)
        row["uid"], row["half_set"] = uid, half_set(uid)
        row["coordinate_x_px"], row["coordinate_y_px"] = 10.5 + number + index, 20.25 + index
        row["score"], row["power"] = 0.5 + index / 100, 1.5
        row["defocus_u_angstrom"], row["defocus_v_angstrom"] = 12000 + number, 11000 + number
        row["defocus_angle_degrees"], row["pixel_size_angstrom"] = 33.0, 2.12
    return table


def done(folder: Path, number: int) -> Exposure:
    """Write what a preprocessing worker leaves for one movie; returns its exposure."""
    attempt = folder / "results" / f"e{number}" / "1.7.1"
    attempt.mkdir(parents=True)
    write_mrc(attempt / "micrograph.mrc", np.full((HEIGHT, WIDTH), number, dtype=np.float32), 1.06)
    write_png(attempt / "thumbnail.png", np.full((8, 8), number, dtype=np.uint8))
    table = table_of(number)
    stack = np.full((len(table), BOX, BOX), number, dtype=np.float32)
    write_particles(attempt, stack, table)
    motion = Motion(
        shift_x_px=(0.0, 0.5), shift_y_px=(0.0, -0.25), pixel_size_angstrom=0.53, total_angstrom=1.0, early_angstrom=1.0,
        late_angstrom=0.0,
    )  # fmt: skip
    source = MotionSource(movie=MOVIES[number - 1], frame_count=2, height_px=2 * HEIGHT, width_px=2 * WIDTH)
    write_star(attempt / "motion.star", motion_star(motion, source, Optics(pixel_size_angstrom=0.53)))
    picks = [
        Pick(
            x_px=float(row["coordinate_x_px"]), y_px=float(row["coordinate_y_px"]), score=0.5, power=1.0, diameter_angstrom=140
        )
        for row in table
    ]
    write_star(attempt / "picks.star", picks_star(picks))
    result = ExposureResult(
        folder=f"results/e{number}/1.7.1",
        micrograph="micrograph.mrc",
        thumbnail="thumbnail.png",
        motion_star="motion.star",
        picks_star="picks.star",
        particles="particles.mrcs" if len(table) else "",
        particle_table="particles.npy",
        width_px=WIDTH,
        height_px=HEIGHT,
        pixel_size_angstrom=1.06,
        voltage_kv=300.0 if number < 3 else 200.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        dose_per_frame_e_per_angstrom2=1.0,
        motion_total_angstrom=10.0 + number,
        motion_converged=True,
        defocus_u_angstrom=12000.0 + number,
        defocus_v_angstrom=11000.0 + number,
        defocus_angle_degrees=33.0,
        ctf_score=0.3,
        pick_count=len(table),
        particle_count=len(table),
        particle_box_px=BOX,
        particle_pixel_size_angstrom=2.12,
        stage_seconds={"motion": float(number)},
    )
    if number != 2:
        result.ctf_fit_resolution_angstrom = 4.0 + number
    return Exposure(
        exposure_id=f"e{number}",
        session_id="s1",
        number=number,
        file=MovieFile(relative_path=MOVIES[number - 1], width_px=2 * WIDTH, height_px=2 * HEIGHT, frame_count=2),
        metadata=MovieMetadata(voltage_kv=300.0),
        state=Exposure.STATE_DONE,
        attempts=1,
        result=result,
    )


def classes(folder: Path) -> ClassAverages:
    """Write a classification: of the first exposure's particles all but one, of the third all, and one that was withdrawn."""
    (folder / "class2d").mkdir()
    write_mrc(folder / "class2d" / "averages-2.mrcs", np.zeros((2, BOX, BOX), dtype=np.float32), 2.12, image_stack=True)
    write_png(folder / "class2d" / "sheet-2.png", np.zeros((16, 32), dtype=np.uint8))
    uids = [int(uid) for uid in table_of(3)["uid"]] + [int(uid) for uid in table_of(1)["uid"][:2]] + [12345]
    assigned = np.zeros(len(uids), dtype=ASSIGNMENT_DTYPE)
    assigned["uid"] = uids
    assigned["class_number"] = [2, 2, 1, 1, 1]
    assigned["psi_degrees"] = [10, 20, 30, 40, 50]
    assigned["origin_x_angstrom"], assigned["origin_y_angstrom"] = [1, 2, 3, 4, 5], [-1, -2, -3, -4, -5]
    assigned["probability"] = 0.9
    write_array(folder / "class2d" / "assignments-2.npy", assigned)
    return ClassAverages(
        session_id="s1",
        revision=2,
        particle_count=5,
        box_px=BOX,
        pixel_size_angstrom=2.12,
        averages="class2d/averages-2.mrcs",
        sheet="class2d/sheet-2.png",
        assignments="class2d/assignments-2.npy",
        classes=[
            ClassAverage(class_number=1, particle_count=3, resolution_angstrom=8.5, effective_classes=1.1, selected=True),
            ClassAverage(class_number=2, particle_count=2, effective_classes=1.9, junk=True),
        ],
        final=True,
    )
