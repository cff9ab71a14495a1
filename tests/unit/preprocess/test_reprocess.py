"""Redoing an exposure from a stage on gives what processing it anew would, without its movie."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf.json_format import MessageToJson, Parse

from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult, MovieFile
from frazil.api.session.v1.session_pb2 import Session, SessionParameters
from frazil.io.movies import MovieInfo
from frazil.io.mrc import read_mrc
from frazil.io.particles import CANDIDATE_DTYPE, read_particles, read_table
from frazil.model.errors import InputError
from frazil.model.stages import PARAMETERS, STAGES, first_stale, redone
from frazil.rpc.convert import stage_digests
from frazil_preprocess.intermediates import Intermediates
from frazil_preprocess.jobs import exposure_test
from frazil_preprocess.pipeline import preprocess, reprocess
from frazil_preprocess.products import write_products
from frazil_preprocess.settings import ctf_search_of, settings_of, stored_settings_of
from frazil_preprocess.stages import Stages
from simulated_micrograph import Scene, simulate

SCENE = Scene(shape=(560, 560), pixel_size_angstrom=2.2, particle_count=24, contrast=0.5, seed=3)
CHANGES: dict[str, dict[str, Any]] = {
    "ctf": {"amplitude_contrast": 0.07},
    "pick": {"particle_diameter_angstrom": 115.0},
    "threshold": {"picker_score_min": 0.1},
    "extract": {"output_box_px": 48},
}

WITHOUT_EFFECT = {  # on what preprocessing finds in a movie
    "movie_folder",
    "movie_glob",
    "metadata_folder",
    "read_bzip2",
    "class_count",
    "class_max_resolution_angstrom",
    "class_mask_diameter_angstrom",
    "class_batch_particles",
    "symmetry",
    "initial_volume_path",
    "until",
}


class House:
    """One movie in memory, and the folder of its session."""

    def __init__(self, folder: Path) -> None:
        truth = simulate(SCENE)
        rng = np.random.default_rng(1)
        mean = (truth.image - truth.image.min()) / np.ptp(truth.image) * 4.0 + 2.0
        self.movie = rng.poisson(np.broadcast_to(mean, (5, *mean.shape))).astype(np.uint8)
        self.folder = folder
        self.exposure = Exposure(
            exposure_id="e", file=MovieFile(relative_path="a.mrc", frame_count=5, width_px=560, height_px=560)
        )
        self.parameters = SessionParameters(
            pixel_size_angstrom=2.2, particle_diameter_angstrom=truth.diameter_angstrom, dose_per_frame_e_per_angstrom2=1.0
        )

    def changed(self, **values: Any) -> SessionParameters:
        parameters = SessionParameters()
        parameters.CopyFrom(self.parameters)
        for name, value in values.items():
            setattr(parameters, name, value)
        return parameters

    def anew(self, parameters: SessionParameters, attempt: str) -> ExposureResult:
        info = MovieInfo(frame_count=5, height_px=560, width_px=560, dtype="uint8", pixel_size_angstrom=None, format="MRC")
        settings = settings_of(parameters, self.exposure, info)
        return self._write(attempt, preprocess(self.movie, settings, Stages(), np), settings, None)

    def redo(self, parameters: SessionParameters, result: ExposureResult, stage: str, attempt: str) -> ExposureResult:
        exposure = Exposure()
        exposure.CopyFrom(self.exposure)
        exposure.result.CopyFrom(result)
        settings = stored_settings_of(parameters, exposure, picks=redone("pick", stage))
        before = Intermediates(self.folder, result)
        return self._write(attempt, reprocess(before, settings, stage, Stages(), np), settings, before)

    def _write(self, attempt: str, found: Any, settings: Any, before: Intermediates | None) -> ExposureResult:
        (self.folder / attempt).mkdir()
        result = write_products(found, settings, self.exposure, self.folder / attempt, before)
        result.folder = attempt
        return result

    def particles(self, result: ExposureResult) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return read_particles(self.folder / result.folder)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("session"))


@pytest.fixture(scope="module")
def first(house: House) -> ExposureResult:
    return house.anew(house.parameters, "first")


@pytest.mark.parametrize("stage", CHANGES)
def test_redoing_from_a_stage_is_as_good_as_processing_anew(house: House, first: ExposureResult, stage: str) -> None:
    parameters = house.changed(**CHANGES[stage])
    assert first_stale(stage_digests(house.parameters), stage_digests(parameters)) == stage
    redo = house.redo(parameters, first, stage, f"redo-{stage}")
    fresh = house.anew(parameters, f"fresh-{stage}")
    images, table = house.particles(redo)
    wanted, wanted_table = house.particles(fresh)
    assert len(table) > 0
    np.testing.assert_array_equal(images, wanted)
    names = [name for name in table.dtype.names or () if name not in ("uid", "half_set")]
    np.testing.assert_array_equal(table[names], wanted_table[names])
    for result in (redo, fresh):
        result.ClearField("folder")
    assert redo == fresh
    assert read_mrc(house.folder / f"redo-{stage}" / redo.micrograph)[0].shape == (560, 560)


def test_a_particle_keeps_its_identity_when_thresholds_move_and_when_it_is_picked_again(
    house: House, first: ExposureResult
) -> None:
    _, before = house.particles(first)
    loose = house.redo(house.changed(picker_score_min=0.05), first, "threshold", "loose")
    _, more = house.particles(loose)
    assert len(more) > len(before)
    assert set(before["uid"]) < set(more["uid"])
    again = house.redo(house.changed(**CHANGES["pick"]), first, "pick", "again")
    found = read_table(house.folder / "again" / again.candidates, CANDIDATE_DTYPE)
    known = read_table(house.folder / "first" / first.candidates, CANDIDATE_DTYPE)
    assert len(set(found["uid"])) == len(found)
    offsets = np.hypot(found["x_px"][:, None] - known["x_px"], found["y_px"][:, None] - known["y_px"])
    near = offsets.min(axis=1) <= 0.25 * found["diameter_angstrom"] / 2.2
    same = found["uid"] == known["uid"][offsets.argmin(axis=1)]
    assert near.any()
    assert (near | ~same).all()  # nobody far away is taken for an old one
    assert same[near].mean() > 0.9  # of two near the same, one gets a name of its own


def test_a_test_of_parameters_leaves_its_result_beside_the_session_and_touches_nothing(
    house: House, first: ExposureResult
) -> None:
    before = {path: path.stat().st_mtime_ns for path in house.folder.rglob("*") if path.is_file()}
    exposure = Exposure()
    exposure.CopyFrom(house.exposure)
    exposure.result.CopyFrom(first)
    exposure.result.stage_digests.update(zip(STAGES, stage_digests(house.parameters), strict=True))
    asked = house.changed(picker_score_min=0.05)
    context = SimpleNamespace(
        environment=SimpleNamespace(device="cpu"),
        exposure=exposure,
        job_id="job-1",
        parameters={"parameters": MessageToJson(asked)},
        report=lambda _: None,
        session=Session(parameters=house.parameters),
        session_folder=house.folder,
    )
    exposure_test.run(context)  # type: ignore[arg-type]
    result = Parse((house.folder / "tests/e/job-1/result.json").read_text(), ExposureResult())
    assert result.pick_count > first.pick_count
    assert set(result.stage_seconds) == {"read", "extract", "write"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    exposure_test.run(context)  # type: ignore[arg-type]  # its worker died before it could say so


def test_what_is_gone_or_damaged_is_said_by_name(house: House, first: ExposureResult) -> None:
    damaged = ExposureResult()
    damaged.CopyFrom(house.redo(house.changed(picker_score_min=0.2), first, "threshold", "damaged"))
    (house.folder / "damaged" / damaged.micrograph).unlink()
    with pytest.raises(InputError, match=r"micrograph\.mrc .* process the movie anew"):
        house.redo(house.parameters, damaged, "threshold", "never")


def test_every_parameter_belongs_to_one_stage_and_only_later_stages_feel_it() -> None:
    named = [name for stage in STAGES for name in PARAMETERS[stage]]
    assert len(set(named)) == len(named)
    fields = SessionParameters.DESCRIPTOR.fields_by_name
    assert {*fields} == {*named, *WITHOUT_EFFECT}  # whoever adds one says which stage it changes
    plain = stage_digests(SessionParameters(movie_folder="/a"))
    assert plain == stage_digests(SessionParameters(movie_folder="/b", class_count=7))
    for stage in STAGES:
        for name in PARAMETERS[stage]:
            changed = SessionParameters()
            value = "x" if fields[name].type == fields[name].TYPE_STRING else 3
            if fields[name].is_repeated:
                getattr(changed, name).append(value)
            else:
                setattr(changed, name, value)
            assert first_stale(plain, stage_digests(changed)) == stage
    assert first_stale((), plain) == "motion"
    assert first_stale(plain, plain) == ""


def test_particles_have_the_defocus_of_their_place(house: House, first: ExposureResult) -> None:
    tilted = ExposureResult()
    tilted.CopyFrom(first)
    tilted.defocus_field_angstrom.extend([800.0, -300.0, 0.0, 0.0, 0.0])
    _, table = house.particles(house.redo(house.changed(output_box_px=40), tilted, "extract", "tilted"))
    x, y = table["coordinate_x_px"] / 560 - 0.5, table["coordinate_y_px"] / 560 - 0.5
    np.testing.assert_allclose(table["defocus_u_angstrom"], first.defocus_u_angstrom + 800.0 * x - 300.0 * y, atol=0.1)
    np.testing.assert_allclose(table["defocus_v_angstrom"], first.defocus_v_angstrom + 800.0 * x - 300.0 * y, atol=0.1)
    assert np.ptp(table["defocus_u_angstrom"]) > 200.0


@pytest.mark.parametrize(
    ("said", "searched"),
    [
        ({}, (0.0, 0.0)),
        ({"phase_shift_min_degrees": 90.0}, (90.0, 90.0)),
        ({"phase_shift_min_degrees": 20.0, "phase_shift_max_degrees": 150.0}, (20.0, 150.0)),
        ({"phase_shift_max_degrees": 120.0}, (0.0, 120.0)),
    ],
)
def test_phase_shifts_are_known_or_searched_for(said: dict[str, float], searched: tuple[float, float]) -> None:
    search = ctf_search_of(SessionParameters(**said))
    assert (search.phase_shift_min_degrees, search.phase_shift_max_degrees) == searched
