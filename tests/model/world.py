"""A small facility around the real ledger: agents with locks as the kernel would keep them, workers, a clock, broken links.

The scheduler's transactions and its database are the real ones; only wire, processes and time are played.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select

from frazil.api.agent.v1 import agent_pb2
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.worker.v1 import worker_pb2
from frazil.model import gpu_errors
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.clock import Clock
from frazil_scheduler.domain import exposures, gpus, nodes, sessions, streaming, switching, upkeep, validation, workers
from frazil_scheduler.lanes.node import Backend
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.store import Store, no_hook
from frazil_scheduler.ledger.transaction import Transaction

PROGRAMS = ("frazil-preprocess", "frazil-reconstruct")


@dataclass
class Worker:
    """A process on a slot."""

    node_id: str
    slot_key: str
    token: worker_pb2.LeaseToken
    draining: bool = False
    claims: list[worker_pb2.Claim] = field(default_factory=list)

    def held(self) -> agent_pb2.HeldSlot:
        """Return what the kernel says of its lock."""
        return agent_pb2.HeldSlot(slot_key=self.slot_key, lease_id=self.token.lease_id, epoch=self.token.epoch)


@dataclass
class Node:
    """A machine with its agent: what the kernel holds and what the lock files remember."""

    node_id: str
    slots: dict[str, int]  # key to MiB
    boot: int = 1
    incarnation: int = 0
    linked: bool = False
    seen: dict[str, int] = field(default_factory=dict)  # newest epoch per slot, kept in the lock file
    faults: dict[str, int] = field(default_factory=dict)  # GPUs with an error that is not a program's own
    foreign: set[str] = field(default_factory=set)  # GPUs whose memory another program uses


def gpu_of(slot_key: str) -> str:
    """Return the GPU behind a slot."""
    return slot_key.partition("#")[0]


class World:
    """The ledger and everything that talks to it."""

    def __init__(self, folder: Path, ledger: str) -> None:
        self.folder = folder
        self.ledger = ledger
        self.mono = 1000.0
        self.wall_offset = 1e8  # seconds by which the wall clock is ahead
        self.heard: dict[str, float] = {}
        self.asked: dict[str, float]  # by lease: when its worker last asked for work in vain
        self.nodes: dict[str, Node] = {}
        self.workers: dict[str, Worker] = {}  # live processes by lease
        self.lanes = {"default": Backend("default", {}), "two": Backend("two", {"nodes": ["two*"]})}
        self.law: Callable[[Transaction], None] = no_hook  # looks at the end of every transaction
        self.accepted: dict[str, int] = {}  # exposure to particles, as workers were told
        self.commits: list[worker_pb2.CommitExposureRequest] = []
        self._tokens = (f"id{number:06d}" for number in itertools.count(1))
        self._requests = (f"request-{number}" for number in itertools.count(1))
        self.clock = Clock(
            monotonic=lambda: self.mono,
            wall_ns=lambda: int((self.mono + self.wall_offset) * 1e9),
            token=lambda: next(self._tokens),
        )
        self.store = self._open()

    def _open(self) -> Store:
        store = Store(self.ledger, self.clock, finish=self._finish)
        store.transact(upkeep.begin)
        self.asked = {}
        self.heard = {row["node_id"]: self.mono for row in store.read(lambda tx: tx.all(select(tables.node)))}
        return store

    def _finish(self, tx: Transaction) -> None:
        upkeep.finish(tx, self.lanes)
        self.law(tx)

    # ------------------------------------------------------------------------------------------- the scheduler itself
    def restart(self) -> None:
        """Stop the scheduler and start it again; every agent has to dial in anew."""
        self.store.close()
        for node in self.nodes.values():
            node.linked = False
        self.mono += 1.0
        self.store = self._open()

    def advance(self, seconds: float) -> None:
        """Let time pass, one tick at its end; linked agents are heard."""
        self.mono += seconds
        for node in self.nodes.values():
            if node.linked:
                self.heard[node.node_id] = self.mono
                self.store.transact(partial(nodes.heard, node_id=node.node_id))
        silence = {node_id: self.mono - heard for node_id, heard in self.heard.items()}
        self.store.transact(partial(upkeep.tick, silence=silence, asked=self.asked, lanes=self.lanes))

    def request_id(self) -> str:
        return next(self._requests)

    def rows(self, table: Any, *where: Any) -> list[Any]:
        """Return a table's rows."""
        return list(self.store.read(lambda tx: tx.all(select(table).where(*where))))

    def row_of(self, session_id: str) -> Any:
        """Return a session's row."""
        (row,) = self.rows(tables.session, tables.session.c.session_id == session_id)
        return row

    # ------------------------------------------------------------------------------------------------------- sessions
    def create(self, name: str, *, until: str = "", workers_wanted: int = 1, **compute: Any) -> str:
        """Create a session, with more of its compute resources if given, and return its identity."""
        wanted = session_pb2.Session(name=name)
        wanted.parameters.until = until
        wanted.parameters.particle_diameter_angstrom = 140
        wanted.compute.CopyFrom(session_pb2.ComputeResources(preprocessing_workers=workers_wanted, **compute))
        validation.fill_defaults(wanted.parameters, wanted.compute)
        row = self.store.transact(lambda tx: sessions.create(tx, wanted, self.folder / name))
        return str(row["session_id"])

    def change(self, session_id: str, how: str) -> str:
        """Start, pause or complete a session; return its state."""
        change = {"start": sessions.start, "pause": sessions.pause, "complete": sessions.complete}[how]
        row = self.store.transact(lambda tx: change(tx, sessions.require(tx, session_id)))
        return str(row["state"])

    def update(self, session_id: str, *, now: bool = True, **compute: Any) -> None:
        """Change some of a session's compute resources."""
        (row,) = self.rows(tables.session, tables.session.c.session_id == session_id)
        wanted = session_pb2.ComputeResources.FromString(row["compute_next"] or row["compute"])
        for name in compute:
            wanted.ClearField(name)  # type: ignore[arg-type]
        wanted.MergeFrom(session_pb2.ComputeResources(**compute))
        self.store.transact(
            lambda tx: sessions.update_compute(tx, self.lanes, sessions.require(tx, session_id), wanted, now=now)
        )

    def switch(self, session_id: str, **plan: int) -> session_pb2.SlotSwitch:
        """Begin a hand-over and return it; no plan gives up the one under way."""

        def body(tx: Transaction) -> session_pb2.SlotSwitch:
            row = sessions.require(tx, session_id)
            if plan:
                switching.switch(tx, self.lanes, row, plan)
            else:
                switching.cancel(tx, row, "a person took it back.")
            return switching.of(sessions.require(tx, session_id))

        return self.store.transact(body)

    def stream(self, session_id: str, job_type: str, *, start: bool) -> None:
        """Start or stop a streaming job."""

        def body(tx: Transaction) -> None:
            row = sessions.require(tx, session_id)
            if start:
                streaming.start_job(tx, self.lanes, row, job_type)
            else:
                streaming.stop_job(tx, row, job_type)

        self.store.transact(body)

    def register(
        self, session_id: str, path: str, *, size: int = 100, defect: str = ""
    ) -> exposure_pb2.RegisterExposuresResponse:
        """Register a movie."""
        file = exposure_pb2.MovieFile(
            relative_path=path, size_bytes=size, modified_ns=1, frame_count=4, width_px=64, height_px=64, defect=defect
        )
        request = exposure_pb2.RegisterExposuresRequest(session_id=session_id, file=file)
        return self.store.transact(lambda tx: exposures.register(tx, request))

    # ---------------------------------------------------------------------------------------------------------- nodes
    def hello(self, node_id: str, slots: dict[str, int] | None = None, *, reboot: bool = False) -> agent_pb2.Welcome:
        """Let an agent dial in, perhaps after a reboot, and do what it is told about held slots."""
        node = self.nodes.setdefault(node_id, Node(node_id, slots or {}))
        if reboot:
            node.boot += 1
            for worker in self.on(node_id):
                del self.workers[worker.token.lease_id]
        pilot = node_id.startswith("frazil-")  # the agent of a cluster job: nobody starts it again
        node.incarnation += not pilot
        kind = scheduler_pb2.GpuSlot.KIND_GPU
        message = agent_pb2.Hello(
            node_id=node_id,
            boot_id=f"{node_id}-boot-{node.boot}",
            incarnation=str(node.incarnation),
            slots=[scheduler_pb2.GpuSlot(slot_key=key, kind=kind, memory_mib=mib) for key, mib in node.slots.items()],
            held=[worker.held() for worker in self.on(node_id)],
            programs=self._programs(node_id),
            cluster_job_name=node_id if pilot else "",
        )
        welcome = self.store.transact(partial(nodes.hello, message=message))
        node.linked = True
        self.heard[node_id] = self.mono
        for lease_id in welcome.kill:
            self.workers.pop(lease_id, None)
        for gpu, xid in node.faults.items():
            self._tell_fault(node_id, gpu, xid)
        return welcome

    def _programs(self, node_id: str) -> Sequence[str]:
        """Return the programs that an agent offers; that of a cluster job only the one it was asked for."""
        pilot = self.rows(tables.cluster_job, tables.cluster_job.c.name == node_id)
        return [pilot[0]["program"]] if pilot else PROGRAMS

    def on(self, node_id: str) -> list[Worker]:
        """Return the live processes of a node."""
        return [worker for worker in self.workers.values() if worker.node_id == node_id]

    def unlink(self, node_id: str) -> None:
        """Break an agent's stream; its workers live on."""
        node = self.nodes[node_id]
        if node.linked:
            node.linked = False
            self.store.transact(partial(nodes.bye, node_id=node_id, incarnation=str(node.incarnation)))

    def deliver(self, node_id: str) -> int:
        """Let the agent do what the scheduler wants now; return how many orders there were."""
        node = self.nodes[node_id]
        orders = self.store.read(lambda tx: nodes.orders(tx, node_id)) if node.linked else []
        for order in orders:
            match order.message.WhichOneof("message"):
                case "start":
                    self._start(node, order.message.start)
                case "stop":
                    self._stop(node, order.message.stop)
                case "probe":
                    self._probe(node, order.message.probe)
        return len(orders)

    def settle(self, node_id: str) -> None:
        """Deliver until the agent has nothing left to do."""
        for _ in range(20):
            if not self.deliver(node_id):
                return

    def _start(self, node: Node, start: agent_pb2.Start) -> None:
        running = self.workers.get(start.lease_id)
        taken = any(worker.slot_key == start.slot_key for worker in self.workers.values())
        foreign = gpu_of(start.slot_key) in node.foreign
        if running is None and (taken or foreign or start.epoch <= node.seen.get(start.slot_key, 0)):
            refused = "SLOT_HELD" if taken else "GPU_BUSY_EXTERNAL" if foreign else "STALE_EPOCH"
            self.exited(node.node_id, start.lease_id, start.epoch, refused=refused)
            return
        if running is None:
            node.seen[start.slot_key] = start.epoch
            token = worker_pb2.LeaseToken(lease_id=start.lease_id, epoch=start.epoch)
            self.workers[start.lease_id] = Worker(node.node_id, start.slot_key, token)
        said = agent_pb2.Started(lease_id=start.lease_id, epoch=start.epoch, pid=1)
        self.store.transact(partial(nodes.started, node_id=node.node_id, message=said))

    def _stop(self, node: Node, stop: agent_pb2.Stop) -> None:
        worker = self.workers.get(stop.lease_id)
        if worker is None:
            self.exited(node.node_id, stop.lease_id, stop.epoch)
        elif stop.mode == agent_pb2.Stop.MODE_KILL or stop.deadline_seconds <= 0:
            self.end(worker, -9)
        else:
            worker.draining = True

    def _probe(self, node: Node, probe: agent_pb2.Probe) -> None:
        node.seen[probe.slot_key] = max(node.seen.get(probe.slot_key, 0), probe.epoch)
        gpu = gpu_of(probe.slot_key)
        if probe.afresh:
            node.faults.pop(gpu, None)
        held = any(worker.slot_key == probe.slot_key for worker in self.workers.values())
        problem = "the lock is held" if held else "memory not released" if gpu in node.foreign else ""
        if gpu in node.faults:
            problem = gpu_errors.describe(node.faults[gpu])
        said = agent_pb2.ProvedFree(slot_key=probe.slot_key, lease_id=probe.lease_id, epoch=probe.epoch, problem=problem)
        self.store.transact(partial(nodes.proved_free, node_id=node.node_id, message=said))

    def fault(self, node_id: str, gpu: str, xid: int) -> None:
        """Let a GPU report an error; an agent that is not linked says so once it is."""
        node = self.nodes[node_id]
        if not gpu_errors.is_programs_own(xid):
            node.faults[gpu] = xid
        if node.linked:
            self._tell_fault(node_id, gpu, xid)

    def _tell_fault(self, node_id: str, gpu: str, xid: int) -> None:
        said = agent_pb2.GpuFault(gpu_uuid=gpu, xid=xid, sentence=gpu_errors.describe(xid))
        self.store.transact(partial(gpus.faulty, node_id=node_id, message=said))

    def exited(
        self, node_id: str, lease_id: str, epoch: int, code: int | None = None, *, refused: str = "", **more: Any
    ) -> None:
        """Let an agent report the end of a worker."""
        said = agent_pb2.Exited(lease_id=lease_id, epoch=epoch, refused=refused, log_tail="last words", **more)
        if code is not None:
            said.exit_code = code
        self.store.transact(partial(nodes.exited, node_id=node_id, message=said))

    # -------------------------------------------------------------------------------------------------------- workers
    def end(self, worker: Worker, code: int, **more: Any) -> None:
        """End a process; a linked agent reports it, else the next Hello tells by its absence."""
        self.workers.pop(worker.token.lease_id, None)
        if self.nodes[worker.node_id].linked:
            self.exited(worker.node_id, worker.token.lease_id, worker.token.epoch, code, **more)

    def ask(self, worker: Worker, body: Any) -> Any:
        """Let a worker ask something; None when it is told to try later, and it exits when its lease is over."""
        try:
            return self.store.transact(body)
        except FrazilError as error:
            if error.reason == "EPOCH_STALE":
                self.end(worker, 0)
            elif error.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.CONFLICT):
                raise
            return None

    def claim(self, worker: Worker, count: int = 2) -> worker_pb2.ClaimExposuresResponse | None:
        """Let a worker claim."""
        request = worker_pb2.ClaimExposuresRequest(lease=worker.token, max_count=count)
        answer = self.ask(worker, lambda tx: workers.claim(tx, request))
        if answer is None:
            return None
        reply: worker_pb2.ClaimExposuresResponse = answer[0]
        worker.claims.extend(reply.claims)
        if not reply.claims:
            self.asked[worker.token.lease_id] = self.mono
        return reply

    def commit(self, worker: Worker, particles: int = 3) -> worker_pb2.CommitExposureResponse | None:
        """Let a worker commit its oldest claim."""
        claim = worker.claims.pop(0)
        request = worker_pb2.CommitExposureRequest(
            request_id=self.request_id(), lease=worker.token, attempt_id=claim.attempt_id, manifest_sha256=claim.attempt_id
        )
        request.result.particle_count = particles
        request.result.particles = "particles.mrcs"
        reply: worker_pb2.CommitExposureResponse | None = self.ask(worker, lambda tx: workers.commit(tx, request))
        if reply is not None:
            self.accepted[claim.exposure.exposure_id] = particles
            self.commits.append(request)
        return reply

    def fail(self, worker: Worker, failure: Any) -> None:
        """Let a worker give up its oldest claim."""
        claim = worker.claims.pop(0)
        request = worker_pb2.FailExposureRequest(
            request_id=self.request_id(),
            lease=worker.token,
            attempt_id=claim.attempt_id,
            failure_class=failure,
            reason="It does not work.",
        )
        self.ask(worker, lambda tx: workers.fail(tx, request))

    def checkpoint(self, worker: Worker, cursor: int | None = None) -> None:
        """Let a streaming worker save, with everything there is or up to a block."""
        job = tables.job.c
        of_lease = select(tables.lease.c.job_id).where(tables.lease.c.lease_id == worker.token.lease_id)
        (row,) = self.rows(
            select(job.job_id, tables.session.c.block_sequence).join(tables.session).where(job.job_id.in_(of_lease)).subquery()
        )
        known = self.rows(tables.checkpoint, tables.checkpoint.c.job_id == row["job_id"])
        request = worker_pb2.CommitCheckpointRequest(request_id=self.request_id(), lease=worker.token)
        request.checkpoint.number = 1 + max((saved["number"] for saved in known), default=0)
        request.checkpoint.cursor_sequence = row["block_sequence"] if cursor is None else cursor
        request.checkpoint.path = f"checkpoints/{row['job_id']}/{request.checkpoint.number}"
        self.ask(worker, lambda tx: workers.commit_checkpoint(tx, request))

    def finish(self, worker: Worker, failure: str = "") -> None:
        """Let a worker say that its job is over, and exit."""
        request = worker_pb2.FinishJobRequest(request_id=self.request_id(), lease=worker.token, failure=failure)
        if self.ask(worker, lambda tx: workers.finish(tx, request)) is not None:
            self.end(worker, 1 if failure else 0)

    def worker_of(self, job_type: str) -> Worker:
        """Return the one worker of a type."""
        types = {row["lease_id"]: row["job_type"] for row in self.rows(tables.job)}
        (worker,) = [w for lease_id, w in self.workers.items() if types.get(lease_id) == job_type]
        return worker

    def second_look(self) -> None:
        """Settle every session and place every job once more: nothing may be left to do."""

        def states(tx: Transaction) -> list[tuple[str, str]]:
            session_states = [(row["session_id"], row["state"]) for row in tx.all(select(tables.session))]
            return session_states + [(row["lease_id"], row["state"]) for row in tx.all(select(tables.lease))]

        def body(tx: Transaction) -> None:
            before = states(tx)
            tx.unsettled.update({row["session_id"]: None for row in tx.all(select(tables.session))})
            tx.placement_wanted = True
            upkeep.finish(tx, self.lanes)
            assert states(tx) == before

        self.store.read(body)
