"""Hand-over of slots inside a session, e.g. from 2 preprocessing workers to 1 and streaming 2D classification.

What is wanted is one row, `session.slot_switch`. In its transaction the jobs that give up their slots are told to stop at a
checkpoint and are parked, and their slots are marked as handed over: nobody else's job gets them once they are free. Nobody's
place gets worse by that, for the session had them. `follow` looks at the row after every change, also after a restart, until
every wanted job runs or the hand-over is given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import RowMapping, select, update

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import compute, jobs, queue, slots, volumes
from frazil_scheduler.domain.stopping import requeue, stop
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction

PERSON = "person"
ALTERNATION = "alternation"
PARKED = "Parked: another job of its session uses its slot for a while."

_State = session_pb2.SlotSwitch.State
_session = tables.session.c
_slot = tables.slot.c
_lease = tables.lease.c
_pilot = tables.cluster_job.c


class _Place(NamedTuple):
    slot_key: str
    holder: str  # job; empty while nobody's


def of(row: RowMapping) -> session_pb2.SlotSwitch:
    """Return the session's newest hand-over; its state is STATE_UNSPECIFIED when there was none."""
    return session_pb2.SlotSwitch.FromString(row["slot_switch"])


def switch(tx: Transaction, lanes: queue.Lanes, row: RowMapping, wanted: Mapping[str, int], asked_by: str = PERSON) -> None:
    """Begin a hand-over; it takes the place of one under way. `wanted` is how many jobs of each type are to run.

    Raises FrazilError for a session that does not run and for a plan that it cannot follow.
    """
    wanted = {job_type: count for job_type, count in sorted(wanted.items(), reverse=True) if count}
    _check(tx, row, wanted)
    for job_type in wanted:
        if job_type != jobs.PREPROCESS:
            _ensure(tx, row, job_type)
    members = [job for job in jobs.of_session(tx, row["session_id"]) if takes_part(job)]
    places = _places(tx, lanes, row["session_id"], members)
    keep = _chosen(members, wanted, places)
    handed_over = _handed_over(members, keep, places)
    _unmark(tx, row["session_id"])
    for key in handed_over:
        slots.hand_over(tx, key, row["session_id"])
    for job in members:
        if job["job_id"] not in keep and not job["parked"]:
            stop(tx, job, "PAUSED", PARKED, parked=True)
        elif job["job_id"] in keep and job["parked"]:
            unpark(tx, job)
    _keep(tx, row, _State.STATE_SWITCHING, wanted, asked_by, f"Handing over to {jobs.in_words(wanted)}.")


def cancel(tx: Transaction, row: RowMapping, why: str) -> None:
    """Give up a hand-over, or end the plan of one that is done: parked jobs return to the queue when the session is in it."""
    known = of(row)
    if known.state not in (_State.STATE_SWITCHING, _State.STATE_DONE):
        return
    _unmark(tx, row["session_id"])
    active = row["state"] in ("RUNNING", "COMPLETING")
    for job in jobs.of_session(tx, row["session_id"]):
        if job["parked"]:
            unpark(tx, job, "WAITING" if active else "PAUSED")
    _keep(tx, row, _State.STATE_CANCELLED, known.jobs, known.asked_by, f"Given up: {why}")


def follow(tx: Transaction, row: RowMapping) -> None:
    """Bring a hand-over under way to its end, as far as that is possible now."""
    known = of(row)
    if known.state != _State.STATE_SWITCHING:
        return
    members = [job for job in jobs.of_session(tx, row["session_id"]) if not job["parked"]]
    running = Counter(job["job_type"] for job in members if job["state"] == "RUNNING")
    coming = Counter(job["job_type"] for job in members if _comes(job))
    missing = sorted(job_type for job_type, count in known.jobs.items() if running[job_type] + coming[job_type] < count)
    if missing:
        titles = " and ".join(jobs.title(job_type) for job_type in missing)
        cancel(tx, row, f"{titles} does not run any more.")
    elif all(running[job_type] >= count for job_type, count in known.jobs.items()):
        _unmark(tx, row["session_id"])
        _keep(
            tx,
            row,
            _State.STATE_DONE,
            known.jobs,
            known.asked_by,
            f"Handed over: {jobs.in_words(dict(sorted(known.jobs.items(), reverse=True)))}.",
        )


def heirs(tx: Transaction, waiting: Sequence[RowMapping]) -> dict[str, str]:
    """Return, of jobs that wait for a slot of a cluster's lane, those that take over a lease, and from which cluster job.

    There a slot ends with its lease and cannot be kept for a session: a new one, for the session alone, takes its place.
    """
    found: dict[str, str] = {}
    for session_id in dict.fromkeys(row["session_id"] for row in waiting):
        session = tx.only(select(tables.session).where(_session.session_id == session_id))
        if of(session).state == _State.STATE_SWITCHING:
            taking = [row["job_id"] for row in waiting if row["session_id"] == session_id]
            found |= dict(zip(taking, _given_up(tx, session_id), strict=False))
    return found


def unpark(tx: Transaction, job: RowMapping, to: str = "WAITING") -> None:
    """Let a parked job return to the queue; one whose worker still stops returns when it has."""
    if job["state"] == "STOPPING":
        stop(tx, job, to)
    else:
        jobs.set_state(tx, job, to, reason="", not_before_mono=0.0, parked=False)


def takes_part(job: RowMapping) -> bool:
    """Tell whether a job can be handed a slot or give it up."""
    return bool(job["indefinite"]) and job["state"] not in jobs.TERMINAL and not _is_stopped(job)


def _is_stopped(job: RowMapping) -> bool:
    """Tell whether a person has stopped a job, or it is on its way to be cancelled."""
    resting = job["state"] == "PAUSED" or (job["state"] == "STOPPING" and job["stop_to"] != "WAITING")
    return resting and not job["parked"]


def _comes(job: RowMapping) -> bool:
    return job["state"] in ("WAITING", "STARTING") or (job["state"] == "STOPPING" and job["stop_to"] == "WAITING")


def _check(tx: Transaction, row: RowMapping, wanted: Mapping[str, int]) -> None:
    if row["state"] != "RUNNING":
        sentence = f"Session {row['name']} is {row['state'].lower()}; slots are handed over only while it is running."
        raise FrazilError("SESSION_STATE_WRONG", sentence, kind=ErrorKind.CONFLICT)
    if compute.awaits_movie(row):
        sentence = "The session holds no slot yet: it waits for the first movie."
        raise FrazilError("SWITCH_TOO_EARLY", sentence, kind=ErrorKind.CONFLICT)
    allowed = jobs.streaming_of(session_pb2.SessionParameters.FromString(row["parameters"]))
    for job_type, count in wanted.items():
        if job_type != jobs.PREPROCESS and job_type not in allowed:
            known = ", ".join((jobs.PREPROCESS, *allowed))
            raise FrazilError("SWITCH_INVALID", f"{job_type!r} takes no part in a hand-over; what does is {known}.")
        volumes.require_start(tx, row, job_type)
        most = 1 if job_type != jobs.PREPROCESS else _workers(tx, row)
        if not 0 <= count <= most:
            sentence = f"The plan names {count} × {jobs.title(job_type)}; the session has {most}."
            more = " Change its compute resources first." if job_type == jobs.PREPROCESS else ""
            raise FrazilError("SWITCH_INVALID", sentence + more)
    if not any(wanted.values()):
        raise FrazilError("SWITCH_INVALID", "The plan names no job; to stop everything, pause the session.")


def _workers(tx: Transaction, row: RowMapping) -> int:
    members = jobs.of_session(tx, row["session_id"])
    return sum(job["job_type"] == jobs.PREPROCESS and takes_part(job) for job in members)


def _ensure(tx: Transaction, row: RowMapping, job_type: str) -> None:
    """Let a streaming job take part that the session did not have, or that was stopped or has failed."""
    compute.set_streaming(tx, row, [*compute.streaming(row), job_type])
    known = [job for job in jobs.of_session(tx, row["session_id"]) if job["job_type"] == job_type]
    if not known:
        jobs.add(tx, row, job_type)
    elif not takes_part(known[0]):
        requeue(tx, known[0])


def _given_up(tx: Transaction, session_id: str) -> list[str]:
    """Return the cluster jobs whose leases a session's parked jobs gave up and no other has taken over yet, oldest first."""
    parked = [job["lease_id"] for job in jobs.of_session(tx, session_id) if job["parked"]]
    held = select(_pilot.name).join(tables.lease, _lease.node_id == _pilot.name).where(_lease.lease_id.in_(parked))
    names = [row["name"] for row in tx.all(held.order_by(_lease.epoch))]
    served = select(_lease.node_id)
    successors = select(_pilot.follows).where((_pilot.state != "ENDED") | _pilot.name.in_(served), _pilot.follows.in_(names))
    taken = {row["follows"] for row in tx.all(successors)}
    return [name for name in names if name not in taken]


def _places(tx: Transaction, lanes: queue.Lanes, session_id: str, members: Sequence[RowMapping]) -> dict[str, list[_Place]]:
    """Return for every job the slots of its session that it could use: those held, and those being handed over."""
    held = {
        row["slot_key"]: job["job_id"]
        for job in members
        for row in tx.all(select(tables.lease).where(_lease.job_id == job["job_id"], ~_lease.released))
    }
    by_lane = queue.slots_by_lane(tx, lanes)
    places: dict[str, list[_Place]] = {}
    for job in members:
        fitting = [slot for slot in by_lane.get(job["lane"], ()) if queue.could_take(lanes, queue.to_job(job), slot)]
        mine = [slot for slot in fitting if slot.slot_key in held or slot.handoff_session_id == session_id]
        mine.sort(key=lambda slot: (slot.memory_mib, slot.slot_key))
        places[job["job_id"]] = [_Place(slot.slot_key, held.get(slot.slot_key, "")) for slot in mine]
    return places


def _chosen(members: Sequence[RowMapping], wanted: Mapping[str, int], places: Mapping[str, Sequence[_Place]]) -> set[str]:
    """Return the jobs that are to run: of each type those that have a slot before those that have none.

    Of workers that are too many, those go first whose slot a job without one can use.
    """
    taking = [job for job in members if job["job_type"] in wanted and not _has_slot(job)]
    useful = {place.holder for job in taking for place in places[job["job_id"]]}
    keep: set[str] = set()
    for job_type, count in wanted.items():
        mine = [job for job in members if job["job_type"] == job_type]
        mine.sort(key=lambda job: (not _has_slot(job), job["job_id"] in useful, job["parked"], job["sequence"]))
        keep |= {job["job_id"] for job in mine[:count]}
    return keep


def _handed_over(members: Sequence[RowMapping], keep: set[str], places: Mapping[str, Sequence[_Place]]) -> list[str]:
    """Return the slots that are to be kept for the session: for every wanted job without one, the smallest it can use."""
    staying = {job["job_id"] for job in members if job["job_id"] in keep and _has_slot(job)}
    kept: list[str] = []
    for job in members:
        if job["job_id"] not in keep or job["job_id"] in staying:
            continue
        offered = (place.slot_key for place in places[job["job_id"]] if place.holder not in staying)
        slot_key = next((key for key in offered if key not in kept), None)
        kept += [slot_key] if slot_key else []
    return kept


def _has_slot(job: RowMapping) -> bool:
    return job["state"] in ("STARTING", "RUNNING")


def _unmark(tx: Transaction, session_id: str) -> None:
    for row in tx.all(select(_slot.slot_key).where(_slot.handoff_session_id == session_id).distinct()):
        slots.hand_over(tx, row["slot_key"], "")


def _keep(
    tx: Transaction, row: RowMapping, state: _State.ValueType, wanted: Mapping[str, int], asked_by: str, sentence: str
) -> None:
    record = of(row)
    if state == _State.STATE_SWITCHING:
        record = session_pb2.SlotSwitch()
        record.ask_time.FromNanoseconds(tx.wall_ns)
    else:
        record.jobs.clear()
    record.jobs.update(wanted)
    record.state, record.asked_by, record.sentence = state, asked_by, sentence
    mine = _session.session_id == row["session_id"]
    tx.run(update(tables.session).where(mine).values(slot_switch=record.SerializeToString(), changes=_session.changes + 1))
    tx.changed_sessions[row["session_id"]] = "session_" + _State.Name(state).replace("STATE_", "slots_").lower()
    tx.unsettled[row["session_id"]] = None
