"""What the stories of sessions, nodes and reconstruction share."""

from __future__ import annotations

from frazil.api.event.v1 import event_pb2
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
