"""Selecting 2D classes, beginning the classification anew, and what workers and pickers are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from frazil.api.event.v1 import event_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2 as wire
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import class_selection, control, reconstruction, sessions, templates, workers
from frazil_scheduler.ledger import tables
from model.world import World
from unit.scheduler.stories import job, notices, session, up
from unit.scheduler.test_reconstruction import checkpoint

CLASSES = "class2d_streaming"


def average(number: int, particles: int, resolution: float | None = None, **more: Any) -> wire.ClassAverage:
    return wire.ClassAverage(class_number=number, particle_count=particles, resolution_angstrom=resolution, **more)


PUBLISHED = (
    average(1, 500, 8.0, effective_classes=1.1),
    average(2, 300, 14.0, effective_classes=1.2),
    average(3, 40, 9.0, effective_classes=1.1),
    average(4, 200, 9.0, effective_classes=3.0),
    average(5, 100, effective_classes=1.0, junk=True),
    average(6, 0, effective_classes=0.0),
)


def publish(world: World, token: worker_pb2.LeaseToken, *averages: wire.ClassAverage, **more: Any) -> list[str]:
    sent = wire.ClassAverages(classes=averages, averages=f"{world.mono}.mrcs", **more)
    request = worker_pb2.PublishClassAveragesRequest(request_id=world.request_id(), lease=token, class_averages=sent)
    return list(world.store.transact(lambda tx: workers.publish(tx, request)).expired_paths)


def select(world: World, session_id: str, **asked: Any) -> wire.SelectClassesResponse:
    request = wire.SelectClassesRequest(**asked)
    return world.store.transact(lambda tx: class_selection.select(tx, sessions.require(tx, session_id), request))


def newest(world: World, session_id: str) -> wire.ClassAverages | None:
    return world.store.read(lambda tx: reconstruction.newest_averages(tx, sessions.require(tx, session_id)))


def selected(world: World, session_id: str) -> list[int]:
    found = newest(world, session_id)
    assert found is not None
    return [one.class_number for one in found.classes if one.selected]


@pytest.fixture
def classified(world: World) -> tuple[str, Any]:
    session_id = up(world, until="", slots=4)
    worker = world.worker_of(CLASSES)
    publish(world, worker.token, *PUBLISHED)
    return session_id, worker


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"particle_count_min": 100}, [1, 2, 4]),
        ({"resolution_max_angstrom": 10.0}, [1, 3, 4]),
        ({"effective_classes_max": 2.0}, [1, 2, 3]),
        ({"ignore_ranking": True}, [1, 2, 3, 4, 5]),
        ({"ignore_ranking": True, "resolution_max_angstrom": 20.0}, [1, 2, 3, 4]),
    ],
)
def test_thresholds_and_ranking_select(
    world: World, classified: tuple[str, Any], thresholds: dict[str, Any], expected: list[int]
) -> None:
    session_id, _ = classified
    reply = select(world, session_id, thresholds=wire.ClassThresholds(**thresholds))
    assert selected(world, session_id) == expected
    counts = {one.class_number: one.particle_count for one in PUBLISHED}
    assert reply.class_averages.selected_particle_count == sum(counts[number] for number in expected)


def test_a_person_wins_until_the_class_begins_anew(world: World, classified: tuple[str, Any]) -> None:
    session_id, worker = classified
    select(world, session_id, select=[5], exclude=[1], thresholds=wire.ClassThresholds(particle_count_min=250))
    assert selected(world, session_id) == [2, 5]
    publish(world, worker.token, average(1, 600, 7.0), average(2, 300, 9.0), average(5, 90, junk=True, restarts=1))
    assert selected(world, session_id) == [2]  # class 5 shows something else now
    assert [sentence for sentence in notices(world) if "began anew" in sentence] == [
        "2D class 5 of s began anew and shows something else now: select or exclude it again."
    ]
    select(world, session_id, release=[1])
    assert selected(world, session_id) == [1, 2]
    select(world, session_id, exclude=[2])
    select(world, session_id, release_all=True)
    assert selected(world, session_id) == [1, 2]
    events = [event_pb2.Event.FromString(row["body"]) for row in world.rows(tables.event)]
    told = [event.class_averages for event in events if event.kind == "classes_selected"]
    assert [[one.class_number for one in averages.classes if one.selected] for averages in told] == [
        [2, 5],
        [1, 2],
        [1],
        [1, 2],
    ]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"select": [9]}, "CLASS_UNKNOWN"),
        ({"select": [1], "exclude": [1]}, "CLASS_TWICE"),
        ({"thresholds": wire.ClassThresholds(resolution_max_angstrom=-1)}, "THRESHOLD_INVALID"),
    ],
)
def test_what_cannot_be_selected_is_refused(
    world: World, classified: tuple[str, Any], asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FrazilError) as caught:
        select(world, classified[0], **asked)
    assert caught.value.reason == reason
    assert not session(world)["class_selection"]


def reset(world: World, session_id: str, *, clear: bool = False) -> None:
    world.store.transact(lambda tx: class_selection.reset(tx, sessions.require(tx, session_id), clear=clear))


def test_begun_anew_nothing_of_the_old_run_counts(world: World, classified: tuple[str, Any]) -> None:
    session_id, worker = classified
    checkpoint(world, worker.token, 1, 10)
    select(world, session_id, exclude=[1])
    reset(world, session_id)
    late = checkpoint(world, worker.token, 2, 20), publish(world, worker.token, average(1, 7))
    assert late == ([f"checkpoints/{worker.token.epoch}.2"], [f"{world.mono}.mrcs"])
    assert selected(world, session_id) == [1, 2, 3, 4]  # shown until there are new ones; what was said of class 1 is forgotten
    world.end(worker, 0)
    world.settle("node")
    anew = world.worker_of(CLASSES)
    reply = world.store.read(lambda tx: workers.attach(tx, worker_pb2.AttachRequest(lease=anew.token)))
    assert not reply.checkpoints
    assert checkpoint(world, anew.token, 1, 5) == [f"checkpoints/{worker.token.epoch}.1"]
    publish(world, anew.token, average(1, 7))
    assert selected(world, session_id) == [1]


def test_cleared_it_stops_and_shows_nothing(world: World, classified: tuple[str, Any]) -> None:
    session_id, worker = classified
    reset(world, session_id, clear=True)
    assert newest(world, session_id) is None
    assert session(world)["particles_classified"] == 0
    world.end(worker, 0)
    world.settle("node")
    assert job(world, CLASSES)["state"] == "PAUSED"
    world.stream(session_id, CLASSES, start=True)
    world.settle("node")
    publish(world, world.worker_of(CLASSES).token, average(1, 7))
    assert selected(world, session_id) == [1]


def read(world: World, token: worker_pb2.LeaseToken, *known: int) -> worker_pb2.ReadParticleBlocksResponse:
    request = worker_pb2.ReadParticleBlocksRequest(lease=token, class_revision=known[0], selection_revision=known[1])
    return world.store.read(lambda tx: workers.read_blocks(tx, request))


def test_a_reader_of_selected_classes_hears_news_once_and_ends_after_the_last_of_them(
    world: World, classified: tuple[str, Any]
) -> None:
    session_id, worker = classified
    token = worker.token  # any worker may ask
    first = read(world, token, 0, 0)
    assert (first.class_averages.revision, first.class_averages.selection.revision) == (1, 0)
    assert not read(world, token, 1, 0).HasField("class_averages")
    select(world, session_id, exclude=[2])
    news = read(world, token, 1, 0).class_averages
    assert (news.revision, news.selection.revision) == (1, 1)
    world.change(session_id, "complete")
    for other in [one for one in world.workers.values() if one.token != token]:
        world.end(other, 0)
    world.settle("node")
    assert not read(world, token, 1, 1).end_of_input  # the last classification is still to come
    publish(world, token, *PUBLISHED, final=True)
    assert not read(world, token, 1, 1).end_of_input  # which is news
    assert read(world, token, 2, 1).end_of_input


def test_templates_of_a_job_are_chosen_by_suggestion_or_by_number(world: World) -> None:
    session_id = up(world, until="", slots=3)
    request = scheduler_pb2.SubmitJobRequest(session=session_id, job_type="create_templates", parameters={"views": "5"})
    world.store.transact(lambda tx: control.submit(tx, world.lanes, request))
    world.settle("node")
    token = world.worker_of("create_templates").token
    made = wire.Templates(
        images="templates/t.mrcs",
        star="templates/t.star",
        templates=[wire.Template(number=1), wire.Template(number=2, selected=True)],
    )
    for name in ("old", "new"):  # a worker that died after it had published is followed by another
        made.sheet = f"templates/{name}.png"
        sent = worker_pb2.PublishTemplatesRequest(request_id=name, lease=token, templates=made)
        expired = world.store.transact(lambda tx, sent=sent: workers.publish_templates(tx, sent)).expired_paths
    assert list(expired) == ["templates/old.png"]
    (known,) = world.store.read(lambda tx: templates.newest_first(tx, session_id))
    assert (known.job_id, known.sheet) == (job(world, "create_templates")["job_id"], "templates/new.png")

    def chosen(*numbers: int) -> SessionParameters:
        return world.store.read(lambda tx: templates.chosen(tx, sessions.require(tx, session_id), known.job_id, numbers))

    assert list(chosen().picker_template_numbers) == [2]
    assert list(chosen(2, 1).picker_template_numbers) == [1, 2]
    assert chosen().picker_templates_path == f"{session(world)['folder']}/templates/t.mrcs"
    with pytest.raises(FrazilError) as caught:
        chosen(3)
    assert caught.value.reason == "TEMPLATE_UNKNOWN"
