"""What the stories of sessions, nodes and reconstruction share."""

from __future__ import annotations

from frazil.api.event.v1 import event_pb2
from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from frazil.api.worker.v1 import worker_pb2
from frazil_scheduler.domain import workers
from frazil_scheduler.ledger import tables
from model.world import World


def job(world: World, job_type: str = "preprocess") -> dict[str, object]:
    (row,) = world.rows(tables.job, tables.job.c.job_type == job_type)
    return dict(row)


def session(world: World) -> dict[str, object]:
    (row,) = world.rows(tables.session)
    return dict(row)


def up(world: World, *, until: str = "preprocess", slots: int = 1) -> str:
    session_id = world.create("s", until=until)
    world.change(session_id, "start")
    world.hello("node", {f"GPU-{number}#0": 24_000 for number in range(slots)})
    world.settle("node")
    return session_id


def notices(world: World) -> list[str]:
    events = [event_pb2.Event.FromString(row["body"]) for row in world.rows(tables.event)]
    return [event.notice.sentence for event in events if event.kind == "notice"]


def publish_volume(
    world: World, token: worker_pb2.LeaseToken, number: int, kind: Volume.Kind.ValueType = Volume.KIND_REFINEMENT
) -> worker_pb2.PublishVolumeResponse:
    volume = Volume(kind=kind, volume=f"{kind}/{number}.mrc", sheet=f"{kind}/{number}.png")
    request = worker_pb2.PublishVolumeRequest(request_id=world.request_id(), lease=token, volume=volume)
    return world.store.transact(lambda tx: workers.publish_volume(tx, request))
