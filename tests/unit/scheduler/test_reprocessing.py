"""Changed parameters redo what is stale; thresholds and a person's word take particles out and bring them back."""

from __future__ import annotations

from typing import Any

import pytest

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import curation, parameters, sessions, workers
from frazil_scheduler.ledger import tables
from model.world import Worker, World
from unit.scheduler.stories import up

ACCEPT, REJECT, NOTHING = (
    exposure_pb2.OVERRIDE_ACCEPT,
    exposure_pb2.OVERRIDE_REJECT,
    exposure_pb2.OVERRIDE_UNSPECIFIED,
)


def change(
    world: World, session_id: str, *, new_only: bool = False, redo_from: str = "", dry: bool = False, **values: Any
) -> dict[str, int]:
    def body(tx: Any) -> dict[str, int]:
        row = sessions.require(tx, session_id)
        request = session_pb2.UpdateParametersRequest(new_exposures_only=new_only, redo_from=redo_from, dry_run=dry)
        request.parameters.ParseFromString(row["parameters"])
        for name, value in values.items():
            setattr(request.parameters, name, value)
        return parameters.change(tx, row, request)[1]

    return world.store.transact(body)


def thresholds(world: World, session_id: str, *intervals: session_pb2.AttributeThreshold) -> None:
    world.store.transact(lambda tx: parameters.set_thresholds(tx, sessions.require(tx, session_id), intervals))


def say(world: World, session_id: str, word: exposure_pb2.Override.ValueType, *paths: str) -> None:
    ids = [row["exposure_id"] for row in exposures(world) if row["relative_path"] in paths]
    world.store.transact(lambda tx: curation.override(tx, sessions.require(tx, session_id), ids, word))


def exposures(world: World) -> list[Any]:
    return sorted(world.rows(tables.exposure), key=lambda row: row["number"])


def states(world: World) -> list[str]:
    return [row["state"] for row in exposures(world)]


def session(world: World) -> Any:
    (row,) = world.rows(tables.session)
    return row


def live(world: World) -> dict[str, int]:
    """Particles of the live blocks by exposure."""
    found: dict[str, int] = {}
    for row in sorted(world.rows(tables.particle_block), key=lambda row: row["sequence"]):
        if row["kind"] == "ADD":
            assert row["exposure_id"] not in found
            found[row["exposure_id"]] = row["particle_count"]
        else:
            del found[row["exposure_id"]]
    assert session(world)["particles"] == sum(found.values())
    return found


def commit(world: World, worker: Worker, particles: int = 3, **result: Any) -> worker_pb2.CommitExposureResponse:
    claim = worker.claims.pop(0)
    request = worker_pb2.CommitExposureRequest(
        request_id=world.request_id(), lease=worker.token, attempt_id=claim.attempt_id, manifest_sha256=claim.attempt_id
    )
    request.result.CopyFrom(exposure_pb2.ExposureResult(particle_count=particles, particles="p.mrcs", **result))
    return world.store.transact(lambda tx: workers.commit(tx, request))


def done(world: World, movies: int) -> tuple[str, Worker]:
    session_id = up(world)
    for number in range(1, movies + 1):
        world.register(session_id, f"m{number}")
    worker = world.worker_of("preprocess")
    for _ in range(movies):
        world.claim(worker, 1)
        commit(world, worker)
    assert set(states(world)) == {"DONE"}
    return session_id, worker


@pytest.mark.parametrize(
    ("values", "stage"),
    [
        ({"gain_rotate": 1}, "motion"),
        ({"spherical_aberration_mm": 1.4}, "ctf"),
        ({"picker": "template", "picker_templates_path": "/t.mrc"}, "pick"),
        ({"picker_score_min": 0.2}, "threshold"),
        ({"box_size_px": 128}, "extract"),
    ],
)
def test_a_changed_parameter_redoes_what_depends_on_it(world: World, values: dict[str, Any], stage: str) -> None:
    session_id, worker = done(world, 2)
    assert change(world, session_id, dry=True, **values) == {stage: 2}
    assert states(world) == ["DONE", "DONE"]
    assert change(world, session_id, **values) == {stage: 2}
    assert states(world) == ["READY", "READY"]
    before = live(world)
    assert sum(before.values()) == 6  # what is there counts until it is replaced
    reply = world.claim(worker, 1)
    assert reply is not None
    (claim,) = reply.claims
    assert claim.first_stage == stage
    assert claim.exposure.result.folder
    assert all(getattr(claim.parameters, name) == value for name, value in values.items())
    commit(world, worker, 5)
    assert sorted(live(world).values()) == [3, 5]
    assert change(world, session_id, **values) == {}
    assert states(world).count("DONE") == 1


def test_what_changes_no_result_redoes_nothing(world: World) -> None:
    session_id, _ = done(world, 1)
    assert change(world, session_id, class_count=30) == {}
    assert states(world) == ["DONE"]
    with pytest.raises(FrazilError, match="clone"):
        change(world, session_id, movie_folder="/elsewhere")


def test_an_attempt_that_was_claimed_before_the_change_is_redone_and_counts_nothing(world: World) -> None:
    session_id = up(world)
    world.register(session_id, "m1")
    worker = world.worker_of("preprocess")
    world.claim(worker, 1)
    assert change(world, session_id, box_size_px=128) == {"extract": 1}
    commit(world, worker)
    assert (states(world), live(world)) == (["READY"], {})
    reply = world.claim(worker, 1)
    assert reply is not None
    assert reply.claims[0].first_stage == "extract"
    commit(world, worker, 4)
    assert (states(world), list(live(world).values())) == (["DONE"], [4])


def test_a_change_for_new_exposures_leaves_the_others_until_one_for_all(world: World) -> None:
    session_id, worker = done(world, 1)
    assert change(world, session_id, new_only=True, picker_score_min=0.3) == {}
    world.register(session_id, "m2")
    world.claim(worker, 1)
    assert worker.claims[0].parameters.picker_score_min == 0.3
    commit(world, worker)
    assert states(world) == ["DONE", "DONE"]
    assert change(world, session_id) == {"threshold": 1}  # the same, now for all
    assert states(world) == ["READY", "DONE"]
    with pytest.raises(FrazilError, match="same"):
        change(world, session_id, new_only=True, output_box_px=64)


def test_everything_can_be_redone_from_a_stage_on_though_nothing_has_changed(world: World) -> None:
    session_id, worker = done(world, 2)
    world.register(session_id, "m3")
    world.claim(worker, 1)
    assert change(world, session_id, redo_from="pick") == {"pick": 3}
    commit(world, worker)
    assert states(world) == ["READY"] * 3
    reply = world.claim(worker, 2)
    assert reply is not None
    assert [claim.first_stage for claim in reply.claims] == ["pick", "pick"]


def test_a_failed_exposure_is_tried_with_the_new_parameters_and_a_failed_redo_starts_from_the_movie(world: World) -> None:
    session_id, worker = done(world, 1)
    change(world, session_id, box_size_px=4096)
    world.claim(worker, 1)
    world.fail(worker, worker_pb2.FailExposureRequest.FAILURE_CLASS_INPUT)
    assert states(world) == ["QUARANTINED"]
    change(world, session_id, box_size_px=256)
    assert states(world) == ["READY"]
    world.claim(worker, 1)
    assert worker.claims[0].first_stage == "extract"
    world.fail(worker, worker_pb2.FailExposureRequest.FAILURE_CLASS_CRASH)
    world.mono += 1000.0
    world.claim(worker, 1)
    assert worker.claims[0].first_stage == ""


def test_a_sweep_goes_on_where_it_was_when_the_scheduler_died(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "SWEEP", 2)
    session_id, _ = done(world, 5)
    change(world, session_id, box_size_px=128)
    assert states(world) == ["READY", "READY", "DONE", "DONE", "DONE"]
    world.restart()
    while world.store.transact(lambda tx: parameters.sweep(tx, session_id)):
        pass
    assert states(world) == ["READY"] * 5
    assert session(world)["sweep_number"] == 0


def test_thresholds_take_particles_out_and_bring_them_back_and_a_persons_word_wins(world: World) -> None:
    session_id = up(world)
    worker = world.worker_of("preprocess")
    fits = {"m1": 3.5, "m2": 6.0, "m3": None}
    for path, fit in fits.items():
        world.register(session_id, path)
        world.claim(worker, 1)
        commit(world, worker, **({} if fit is None else {"ctf_fit_resolution_angstrom": fit}))
    assert len(live(world)) == 3
    fine = session_pb2.AttributeThreshold(attribute="ctf_fit_resolution_angstrom", maximum=5.0)
    thresholds(world, session_id, fine)
    assert [row["rejected"] for row in exposures(world)] == ["", "CTF fit is 6 Å, above 5 Å.", "CTF fit is not known."]
    assert (len(live(world)), session(world)["rejected"]) == (1, 2)
    say(world, session_id, ACCEPT, "m2")
    say(world, session_id, REJECT, "m1")
    assert [row["rejected"] for row in exposures(world)] == [curation.BY_HAND, "", "CTF fit is not known."]
    thresholds(world, session_id)
    assert [row["rejected"] != "" for row in exposures(world)] == [True, False, False]
    say(world, session_id, NOTHING, "m1", "m2")
    assert len(live(world)) == 3
    assert session(world)["rejected"] == 0
    thresholds(world, session_id, fine)
    world.register(session_id, "m4")
    world.claim(worker, 1)
    assert commit(world, worker, ctf_fit_resolution_angstrom=9.0).particle_block_sequence == 0
    assert len(live(world)) == 1
    assert set(states(world)) == {"DONE"}


def test_what_is_to_be_redone_is_not_added_again_before_it_is(world: World) -> None:
    session_id, worker = done(world, 1)
    say(world, session_id, REJECT, "m1")
    change(world, session_id, box_size_px=128)
    say(world, session_id, ACCEPT, "m1")
    assert live(world) == {}  # its box is the old one
    world.claim(worker, 1)
    commit(world, worker, 7)
    assert list(live(world).values()) == [7]


def test_senseless_thresholds_are_refused_with_a_sentence(world: World) -> None:
    session_id, _ = done(world, 1)
    make = session_pb2.AttributeThreshold
    for wrong, sentence in (
        ([make(attribute="beauty", minimum=1)], "no attribute 'beauty'"),
        ([make(attribute="particle_count", minimum=3, maximum=2)], "above the greatest"),
        ([make(attribute="particle_count", minimum=1)] * 2, "two thresholds"),
    ):
        with pytest.raises(FrazilError, match=sentence):
            thresholds(world, session_id, *wrong)
