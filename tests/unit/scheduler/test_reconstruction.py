"""What streaming jobs leave behind: checkpoints and class averages."""

from __future__ import annotations

import pytest

from frazil import jobs as declarations
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1.session_pb2 import ComputeResources, SessionParameters
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import control, jobs, reconstruction, sessions, volumes, workers
from frazil_scheduler.ledger import tables
from model.world import World
from unit.scheduler.stories import job, notices, publish_volume, session, up

CLASSES, REFINE = "class2d_streaming", "refine3d_streaming"


def checkpoint(world: World, token: worker_pb2.LeaseToken, number: int, cursor: int) -> list[str]:
    request = worker_pb2.CommitCheckpointRequest(request_id=world.request_id(), lease=token)
    request.checkpoint.number, request.checkpoint.cursor_sequence = number, cursor
    request.checkpoint.path = f"checkpoints/{token.epoch}.{number}"
    return list(world.store.transact(lambda tx: workers.commit_checkpoint(tx, request)).expired_paths)


def test_the_last_three_checkpoints_are_kept_and_come_back_newest_first(world: World) -> None:
    up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token
    expired = [checkpoint(world, token, number, 10 * number) for number in range(1, 6)]
    assert expired == [[], [], [], [f"checkpoints/{token.epoch}.1"], [f"checkpoints/{token.epoch}.2"]]
    reply = world.store.read(lambda tx: workers.attach(tx, worker_pb2.AttachRequest(lease=token)))
    assert [(c.number, c.cursor_sequence) for c in reply.checkpoints] == [(5, 50), (4, 40), (3, 30)]
    for number, cursor in ((5, 60), (6, 40)):
        with pytest.raises(FrazilError) as caught:
            checkpoint(world, token, number, cursor)
        assert caught.value.reason == "CHECKPOINT_OUT_OF_ORDER"


def test_a_worker_that_resumed_from_an_older_checkpoint_drops_the_damaged_ones(world: World) -> None:
    up(world, until="", slots=2)
    old = world.worker_of("class2d_streaming")
    for number in (1, 2):
        checkpoint(world, old.token, number, 10 * number)
    world.end(old, 1)
    world.settle("node")
    world.advance(2)
    world.settle("node")
    token = world.worker_of("class2d_streaming").token
    assert checkpoint(world, token, 2, 15) == [f"checkpoints/{old.token.epoch}.2"]
    rows = world.rows(tables.checkpoint)
    assert sorted((row["number"], row["epoch"]) for row in rows) == [(1, old.token.epoch), (2, token.epoch)]


def test_the_last_two_class_averages_are_kept(world: World) -> None:
    session_id = up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token

    def publish(number: int) -> worker_pb2.PublishClassAveragesResponse:
        averages = reconstruction_pb2.ClassAverages(averages=f"{number}.mrcs", sheet=f"{number}.png", particle_count=number)
        request = worker_pb2.PublishClassAveragesRequest(request_id=f"p{number}", lease=token, class_averages=averages)
        return world.store.transact(lambda tx: workers.publish(tx, request))

    assert [(publish(number).revision) for number in (1, 2)] == [1, 2]
    third = publish(3)
    assert (third.revision, list(third.expired_paths)) == (3, ["1.mrcs", "1.png"])
    newest = world.store.read(lambda tx: reconstruction.newest_averages(tx, sessions.require(tx, session_id)))
    assert newest is not None
    assert (newest.revision, newest.averages, newest.session_id) == (3, "3.mrcs", session_id)
    assert session(world)["particles_classified"] == 3


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/averages.mrcs"])
def test_a_path_out_of_the_session_folder_is_refused(world: World, path: str) -> None:
    up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token
    request = worker_pb2.PublishClassAveragesRequest(request_id="p", lease=token)
    request.class_averages.averages = path
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: workers.publish(tx, request))
    assert caught.value.reason == "PATH_INVALID"


def test_the_last_two_volumes_of_each_kind_are_kept(world: World) -> None:
    session_id = up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token
    for number in (1, 2, 3):
        reply = publish_volume(world, token, number)
    assert (reply.revision, list(reply.expired_paths)) == (3, ["1/1.mrc", "1/1.png"])
    reply = publish_volume(world, token, 4, Volume.KIND_AB_INITIO)
    assert (reply.revision, list(reply.expired_paths)) == (4, [])
    newest = [world.store.read(lambda tx, kind=kind: volumes.newest(tx, session_id, kind)) for kind in (0, 1, 2)]
    assert [volume.revision for volume in newest if volume is not None] == [4, 3, 4]
    assert newest[0] is not None
    assert newest[0].session_id == session_id


def test_a_volume_out_of_the_session_folder_is_refused(world: World) -> None:
    up(world, until="", slots=2)
    token = world.worker_of("class2d_streaming").token
    request = worker_pb2.PublishVolumeRequest(request_id="v", lease=token)
    request.volume.classes.add().volume = "../other.mrc"
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: workers.publish_volume(tx, request))
    assert caught.value.reason == "PATH_INVALID"


def test_refinement_starts_on_request_from_the_newest_ab_initio_volume(world: World) -> None:
    session_id = up(world, until="", slots=3)
    with pytest.raises(FrazilError, match="frazil job submit s abinitio") as caught:
        world.stream(session_id, "refine3d_streaming", start=True)
    assert caught.value.reason == "VOLUME_MISSING"
    with pytest.raises(FrazilError, match="needs a volume"):
        world.switch(session_id, preprocess=1, refine3d_streaming=1)
    token = world.worker_of("class2d_streaming").token
    for number in (1, 2):
        publish_volume(world, token, number, Volume.KIND_AB_INITIO)
    world.stream(session_id, "refine3d_streaming", start=True)
    world.settle("node")
    token = world.worker_of("refine3d_streaming").token
    reply = world.store.read(lambda tx: workers.attach(tx, worker_pb2.AttachRequest(lease=token)))
    assert reply.start_volume == "2/2.mrc"


@pytest.mark.parametrize(
    ("until", "path", "streams", "at_start"),
    [
        ("", "", {CLASSES, REFINE}, {CLASSES}),
        ("", "/maps/start.mrc", {CLASSES, REFINE}, {CLASSES, REFINE}),
        (
            "refine3d",
            "/maps/start.mrc",
            {CLASSES, REFINE},
            {CLASSES, REFINE},
        ),
        ("class2d", "/maps/start.mrc", {CLASSES}, {CLASSES}),
        ("preprocess", "/maps/start.mrc", set(), set()),
    ],
)
def test_which_streaming_jobs_a_session_has(until: str, path: str, streams: set[str], at_start: set[str]) -> None:
    parameters = SessionParameters(until=until, initial_volume_path=path)
    assert set(jobs.streaming_of(parameters)) == streams
    assert set(jobs.streaming_at_start(parameters, ComputeResources())) == at_start


@pytest.mark.parametrize(("box", "gigabytes"), [(0, 11), (128, 11), (256, 11), (400, 37), (512, 77)])
def test_refinement_asks_for_more_memory_with_its_box(box: int, gigabytes: int) -> None:
    parameters = SessionParameters(box_size_px=512, output_box_px=box) if box else SessionParameters()
    asked = declarations.load("refine3d_streaming").gpu_memory_min_mib(jobs.workload_of(parameters))
    assert asked * 1024**2 / 1e9 == pytest.approx(gigabytes, abs=1)


def test_ab_initio_is_submitted_with_parameters_and_its_volume_outlives_it(world: World) -> None:
    session_id = up(world, until="", slots=3)
    request = scheduler_pb2.SubmitJobRequest(
        session=session_id, job_type="abinitio", parameters={"classes": "2", "symmetry": "D7"}
    )
    world.store.transact(lambda tx: control.submit(tx, world.lanes, request))
    world.settle("node")
    worker = world.worker_of("abinitio")
    reply = world.store.read(lambda tx: workers.attach(tx, worker_pb2.AttachRequest(lease=worker.token)))
    asked = declarations.load("abinitio").read(dict(reply.parameters))
    assert (asked["classes"], asked["symmetry"], asked["restarts"]) == (2, "D7", 3)
    publish_volume(world, worker.token, 1, Volume.KIND_AB_INITIO)
    finish = worker_pb2.FinishJobRequest(request_id="f", lease=worker.token)
    world.store.transact(lambda tx: workers.finish(tx, finish))
    world.end(worker, 0)
    world.settle("node")
    assert job(world, "abinitio")["state"] == "DONE"
    world.stream(session_id, "refine3d_streaming", start=True)


def test_what_a_worker_has_to_say_is_told_once_and_only_while_its_lease_is_current(world: World) -> None:
    session_id = up(world)
    token = world.worker_of("preprocess").token
    said = worker_pb2.NotifyRequest(request_id="r", lease=token, sentence="A block is left out.")
    for _ in range(2):
        world.store.transact(lambda tx: workers.notify(tx, said))
    assert notices(world) == ["Preprocessing worker: A block is left out."]
    world.change(session_id, "pause")
    world.end(world.worker_of("preprocess"), 0)
    late = worker_pb2.NotifyRequest(request_id="late", lease=token, sentence="Too late.")
    with pytest.raises(FrazilError) as caught:
        world.store.transact(lambda tx: workers.notify(tx, late))
    assert caught.value.reason == "EPOCH_STALE"
