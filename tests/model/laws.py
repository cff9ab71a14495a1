"""What must hold after every transaction, read from the ledger's tables and from what really runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import select

from frazil.api.event.v1 import event_pb2
from frazil.api.session.v1 import session_pb2
from frazil_scheduler.domain import jobs, limits
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction
from model.world import World


class Watch:
    """What the laws need to remember from one transaction to the next."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.epoch = 0  # newest that was looked at


class Fold:
    """Applies every event in order: a reader who does so must hold the ledger's state."""

    def __init__(self) -> None:
        self.sequence = 0
        self.exposures: dict[str, Any] = {}
        self.jobs: dict[str, Any] = {}
        self.nodes: dict[str, Any] = {}
        self.sessions: dict[str, Any] = {}
        self.blocks: defaultdict[str, list[Any]] = defaultdict(list)

    def catch_up(self, world: World) -> None:
        """Read what is new; the numbers must have no gap."""
        new = tables.event.c.sequence > self.sequence
        for row in world.store.read(lambda tx: tx.all(select(tables.event).where(new).order_by(tables.event.c.sequence))):
            event = event_pb2.Event.FromString(row["body"])
            self.sequence += 1
            assert (row["sequence"], event.sequence) == (self.sequence, self.sequence)
            match event.WhichOneof("body"):
                case "exposure":
                    self.exposures[event.exposure.exposure_id] = event.exposure
                case "job":
                    self.jobs[event.job.job_id] = event.job
                case "node":
                    self.nodes[event.node.node_id] = event.node
                case "session" if event.kind == "session_deleted":
                    self.forget(event.session.session_id)
                case "session":
                    self.sessions[event.session.session_id] = event.session
                case "particle_block":
                    self.blocks[event.session_id].append(event.particle_block)

    def forget(self, session_id: str) -> None:
        """Forget everything of a session."""
        del self.sessions[session_id]
        self.blocks.pop(session_id, None)
        self.jobs = {key: job for key, job in self.jobs.items() if job.session_id != session_id}
        self.exposures = {key: row for key, row in self.exposures.items() if row.session_id != session_id}

    def check(self, world: World) -> None:
        """Compare with the tables."""

        def body(tx: Any) -> None:
            rows = tx.all(select(tables.exposure))
            assert self.exposures == {row["exposure_id"]: records.exposure_record(row) for row in rows}
            rows = tx.all(select(tables.job))
            assert self.jobs == {row["job_id"]: records.job_record(tx, row) for row in rows}
            for row in tx.all(select(tables.session)):
                told = self.sessions[row["session_id"]]
                assert told.state == records.session_record(row).state
                assert told.state_reason == records.session_record(row).state_reason
            for row in tx.all(select(tables.node)):
                told = self.nodes[row["node_id"]]
                now = records.node_record(tx, row)
                assert (told.state, told.slots) == (now.state, now.slots)

        world.store.read(body)


Snapshot = dict[str, list[dict[str, Any]]]


def snapshot(world: World) -> Snapshot:
    """Return every table, read at one moment and past the layers under test."""

    def body(tx: Any) -> Snapshot:
        names = [table.name for table in tables.metadata.sorted_tables if table.name not in ("event", "request")]
        return {name: [dict(r) for r in tx.connection.exec_driver_sql(f"SELECT * FROM {name}").mappings()] for name in names}  # noqa: S608

    return world.store.read(body)


def check_slots(world: World, now: Snapshot) -> None:
    """L1 L2 L3 L7: what runs is what the ledger says, at most one process per slot, on a slot large enough."""
    leases = {row["lease_id"]: row for row in now["lease"]}
    memory = {row["slot_key"]: row["memory_mib"] for row in now["slot"]}
    minimum = {row["job_id"]: row["gpu_memory_min_mib"] for row in now["job"]}
    stray = {row["slot_key"] for row in now["slot"] if row["stray_lease_id"]}
    open_on = {row["slot_key"] for row in leases.values() if row["state"] != "CLOSED"}
    used = Counter(worker.slot_key for worker in world.workers.values())
    assert all(count == 1 for count in used.values())
    assert set(used) <= open_on | stray
    for worker in world.workers.values():
        row = leases[worker.token.lease_id]
        assert (row["epoch"], row["slot_key"]) == (worker.token.epoch, worker.slot_key)
    for row in leases.values():  # a job that has outgrown a slot needs more from then on
        assert row["released"] or row["stop"] or memory[row["slot_key"]] >= minimum[row["job_id"]]


def check_leases(now: Snapshot) -> None:
    """L4 L5 L8: epochs grow without reuse, every job is in one state, and bound exactly when it should be."""
    rows = now["lease"]
    (meta,) = now["meta"]
    assert len({row["epoch"] for row in rows}) == len(rows)
    assert max((row["epoch"] for row in rows), default=0) <= meta["epoch"]  # those of a deleted session are gone
    binding = Counter(row["job_id"] for row in rows if not row["released"])
    for job in now["job"]:
        assert job["state"] in jobs.STATES
        bound = binding[job["job_id"]]
        assert bound <= 1
        if job["state"] in ("STARTING", "RUNNING", "STOPPING"):
            assert bound == 1
        elif job["state"] in ("WAITING", "PAUSED", "CANCELLED"):
            assert bound == 0
        newest = max((row["epoch"] for row in rows if row["job_id"] == job["job_id"]), default=0)
        assert job["epoch"] == newest
    for row in rows:
        if row["state"] in ("RESERVED", "HELD"):
            assert not row["released"]
        if row["state"] in ("LOST", "QUARANTINED", "CLOSED"):
            assert row["released"]


def check_sessions(now: Snapshot) -> None:
    """A paused session holds nothing but for auxiliary jobs submitted since; E1: every exposure is counted once."""
    states = {row["session_id"]: row["state"] for row in now["session"]}
    session_of = {row["job_id"]: row["session_id"] for row in now["job"] if row["indefinite"]}
    for row in now["lease"]:
        if states.get(session_of.get(row["job_id"], "")) in ("PAUSED", "COMPLETED"):
            assert row["released"]  # what was lost or quarantined may still come back, to be killed or proven free
            assert row["state"] not in ("RESERVED", "HELD")
    for row in now["session"]:
        found = Counter(e["state"] for e in now["exposure"] if e["session_id"] == row["session_id"])
        assert [row[name.lower()] for name in ("READY", "RUNNING", "DONE", "QUARANTINED")] == [
            found[name] for name in ("READY", "RUNNING", "DONE", "QUARANTINED")
        ]
        assert row["found"] == sum(found.values())


def check_hand_over(now: Snapshot) -> None:
    """A slot is kept for a session only while that hands slots over; parked jobs wait for one that does or did."""
    switches = {row["session_id"]: session_pb2.SlotSwitch.FromString(row["slot_switch"]) for row in now["session"]}
    for slot in now["slot"]:
        if slot["handoff_session_id"]:
            assert switches[slot["handoff_session_id"]].state == session_pb2.SlotSwitch.STATE_SWITCHING
    states = {row["session_id"]: row["state"] for row in now["session"]}
    for job in now["job"]:
        if job["parked"]:
            assert job["state"] == "PAUSED" or (job["state"], job["stop_to"]) == ("STOPPING", "PAUSED")
            switching = (session_pb2.SlotSwitch.STATE_SWITCHING, session_pb2.SlotSwitch.STATE_DONE)
            assert switches[job["session_id"]].state in switching
            assert states[job["session_id"]] in ("RUNNING", "PAUSING", "PAUSED")
    for session_id, switch in switches.items():
        if switch.state == session_pb2.SlotSwitch.STATE_SWITCHING:
            assert states[session_id] == "RUNNING"


def check_order(world: World, watch: Watch, tx: Transaction) -> None:
    """F1, at the end of every transaction: nobody got a slot that a job before it could have used, except within a session
    that hands slots over."""
    epoch = tx.scalar(select(tables.meta.c.epoch))
    if epoch == watch.epoch:
        return
    lease, job = tables.lease.c, tables.job.c
    granted = tx.all(select(lease.slot_key, lease.node_id, lease.job_id).where(lease.epoch > watch.epoch))
    watch.epoch = epoch
    bound = {row["job_id"] for row in tx.all(select(lease.job_id).where(~lease.released))}
    rows = tx.all(select(tables.job))
    waiting = [row for row in rows if row["state"] == "WAITING" and row["not_before_mono"] <= world.mono]
    for grant in granted:
        (slot,) = tx.all(select(tables.slot).where(tables.slot.c.slot_key == grant["slot_key"]))
        (got,) = tx.all(select(tables.job).where(job.job_id == grant["job_id"]))
        if slot["handoff_session_id"]:
            assert slot["handoff_session_id"] == got["session_id"]
            continue
        for row in waiting:
            before = (-row["priority"], row["sequence"]) < (-got["priority"], got["sequence"])
            gpus = row["gpus"].splitlines()
            could = (
                row["job_id"] not in bound
                and world.lanes[row["lane"]].accepts(grant["node_id"])
                and slot["memory_mib"] >= row["gpu_memory_min_mib"]
                and (not gpus or slot["slot_key"] in gpus or slot["slot_key"].split("#")[0] in gpus)
            )
            assert not (before and could)


def check_exposures(now: Snapshot) -> None:
    """E2 E4: results belong to accepted attempts; running ones to a lease that binds; failures have reasons and limits."""
    attempts = now["attempt"]
    released = {row["lease_id"]: row["released"] for row in now["lease"]}
    running = Counter(row["exposure_id"] for row in attempts if row["outcome"] == "RUNNING")
    assert all(not released[row["lease_id"]] for row in attempts if row["outcome"] == "RUNNING")
    folders = {f"results/{row['exposure_id']}/{row['folder']}" for row in attempts if row["outcome"] == "DONE"}
    assert len({row["folder"] for row in attempts if row["outcome"]}) <= len(attempts)
    for row in now["exposure"]:
        record = records.exposure_record(row)
        assert running[row["exposure_id"]] == (row["state"] == "RUNNING")
        assert row["attempts"] <= limits.ATTEMPTS_MAX
        assert (row["state"] != "QUARANTINED") or row["failure"]
        if row["state"] == "DONE":
            assert record.result.folder in folders
    for row in attempts:
        assert row["outcome"] in ("RUNNING", "DONE", "INPUT", "RESOURCE", "CRASH", "INFRA", "RETURNED", "SUPERSEDED")


def check_blocks(world: World, now: Snapshot, fold: Fold) -> None:
    """E3 E5: blocks have no gap, and their particles are exactly those that workers were told were accepted."""
    for session in now["session"]:
        mine = [row for row in now["particle_block"] if row["session_id"] == session["session_id"]]
        rows = sorted(mine, key=lambda row: row["sequence"])
        assert [row["sequence"] for row in rows] == list(range(1, session["block_sequence"] + 1))
        assert fold.blocks[session["session_id"]] == [records.block_record(row) for row in rows]
        live: dict[str, int] = {}
        for row in rows:
            if row["kind"] == "ADD":
                assert row["exposure_id"] not in live
                live[row["exposure_id"]] = row["particle_count"]
            else:
                assert live.pop(row["exposure_id"]) == row["particle_count"]
        assert session["particles"] == sum(live.values())
        rows = {row["exposure_id"]: row for row in now["exposure"] if row["session_id"] == session["session_id"]}
        assert session["rejected"] == sum(row["rejected"] != "" for row in rows.values())
        told = {key: count for key, count in world.accepted.items() if key in rows}
        assert live.items() <= told.items()
        for key, count in told.items():
            if rows[key]["rejected"]:
                assert key not in live
            elif not rows[key]["outdated"]:  # what is to be redone counts until it is, or not at all
                assert live.get(key, 0) == count


def check_all(world: World, watch: Watch) -> None:
    """Check every law."""
    fold = watch.fold
    fold.catch_up(world)
    fold.check(world)
    now = snapshot(world)
    check_slots(world, now)
    check_leases(now)
    check_sessions(now)
    check_hand_over(now)
    check_exposures(now)
    check_blocks(world, now, fold)
    world.second_look()  # F2: nothing more can be granted, no session has anything to follow
