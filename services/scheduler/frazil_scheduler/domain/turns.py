"""Automatic alternation applied to a session: every turn is one hand-over of slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import RowMapping, select

from frazil_scheduler.alternation import Pace, Player, next_turn
from frazil_scheduler.domain import compute, jobs, limits, queue, reconstruction, switching
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.placement import Slot, free, usable

_lease = tables.lease.c


def pace_of(row: RowMapping) -> Pace:
    """Return how fast a session's jobs take turns."""
    alternation = compute.of(row).alternation
    return Pace(
        interval=60.0 * (alternation.update_interval_minutes or limits.UPDATE_INTERVAL_MINUTES),
        turn_min=60.0 * (alternation.turn_minutes_min or limits.TURN_MINUTES_MIN),
    )


def alternate(tx: Transaction, lanes: queue.Lanes, row: RowMapping) -> None:
    """Let the next job have its turn, if it is time. Nothing happens while workers start or stop."""
    kinds = (jobs.PREPROCESS, *compute.streaming(row))
    members = [job for job in jobs.of_session(tx, row["session_id"]) if job["job_type"] in kinds and switching.takes_part(job)]
    if any(job["state"] in ("STARTING", "STOPPING") for job in members):
        return
    slots = queue.slots_by_lane(tx, lanes)
    if _return_parked(tx, members, slots):
        return
    ready = [job for job in members if job["not_before_mono"] <= tx.mono]
    turn = next_turn(_players(tx, lanes, row, ready, slots), row["ready"] + row["running"], tx.mono, pace_of(row))
    if turn is None:
        return
    types = {job["job_id"]: job["job_type"] for job in ready}
    wanted = Counter(job["job_type"] for job in members if job["state"] == "RUNNING")
    wanted[types[turn.gives]] -= 1
    wanted[types[turn.takes]] += 1
    switching.switch(tx, lanes, row, wanted, switching.ALTERNATION)


def _return_parked(tx: Transaction, members: Sequence[RowMapping], slots: Mapping[str, Sequence[Slot]]) -> bool:
    """Let parked jobs back into the queue as soon as there is a slot that none of the waiting jobs could use."""
    returned = False
    for job in members:
        asked = queue.to_job(job)
        if job["parked"] and any(free(slot) and usable(asked, slot) for slot in slots.get(job["lane"], ())):
            switching.unpark(tx, job)
            returned = True
    return returned


def _players(
    tx: Transaction, lanes: queue.Lanes, row: RowMapping, members: Sequence[RowMapping], slots: Mapping[str, Sequence[Slot]]
) -> list[Player]:
    running = [job for job in members if job["state"] == "RUNNING"]
    leased = {job["lease_id"]: job["job_id"] for job in running}
    held = {
        lease["slot_key"]: leased[lease["lease_id"]]
        for lease in tx.all(select(tables.lease).where(_lease.lease_id.in_(sorted(leased))))
    }
    players = []
    for job in members:
        runs, streams = job["state"] == "RUNNING", jobs.streams(job)
        asked = queue.to_job(job)
        fitting = {slot.slot_key for slot in slots.get(job["lane"], ()) if queue.could_take(lanes, asked, slot)}
        players.append(
            Player(
                job_id=job["job_id"],
                streams=streams,
                runs=runs,
                since=job["running_mono"] if runs else job["state_mono"],
                updated=job["updated_mono"],
                has_input=streams and row["block_sequence"] > reconstruction.cursor(tx, job["job_id"]),
                could_use=frozenset(held[key] for key in fitting & held.keys()),
            )
        )
    return players
