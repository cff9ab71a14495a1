"""What the agent does with the scheduler's messages: plain calls from messages to messages, with a clock passed in."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from frazil.agent.children import Children, Ended, Worker
from frazil.agent.cuda_probe import CudaProbe
from frazil.agent.gpu_watch import GpuReader, GpuWatch
from frazil.agent.inventory import Slot
from frazil.agent.locks import LockFolder
from frazil.agent.out_of_memory import OomWatch
from frazil.agent.prove_free import TOLERANCE_MIB, Claim, GpuChecks, Proof, Trial, allowed_mib
from frazil.api.agent.v1.agent_pb2 import (
    Beat,
    ConnectRequest,
    ConnectResponse,
    Exited,
    GpuUse,
    HeldSlot,
    Hello,
    Leaving,
    Probe,
    ProvedFree,
    Start,
    Started,
    Stop,
    Welcome,
)
from frazil.api.scheduler.v1.scheduler_pb2 import GpuSlot
from frazil.model.errors import ErrorKind, FrazilError
from frazil.model.gpu_errors import is_programs_own
from frazil.rpc.config import EXIT_OUT_OF_MEMORY

_FAULT_GRACE_SECONDS = 10.0  # from a program's own GPU error to the end of the worker that is alone on the GPU
_REMEMBERED_EXITS = 200
_PROGRAMS_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Who this agent is and what it has."""

    node_id: str
    boot_id: str
    incarnation: str
    slots: tuple[Slot, ...]
    programs: tuple[str, ...]
    baselines_mib: Mapping[str, int]  # by GPU uuid
    once_idle_seconds: float = 0.0  # above 0: it serves one lease and leaves, or when none has come for so long


class Control:
    """The agent's decisions. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        node: Node,
        locks: LockFolder,
        children: Children,
        gpus: GpuReader,
        clock: Callable[[], float],
        *,
        oom: OomWatch | None = None,
        trial: Callable[[str, Callable[[], float]], Trial] = CudaProbe,
    ) -> None:
        self._node = node
        self._slots = {slot.slot_key: slot for slot in node.slots}
        self._locks = locks
        self._children = children
        self._gpus = gpus
        self._watch = GpuWatch(gpus)
        self._oom = oom or OomWatch()
        self._trial = trial
        self._clock = clock
        self._max_term = 0
        self._beats = 0
        self._draining = False
        self._busy_at = clock()
        self._served = False
        self._proofs: dict[str, Proof] = {}  # by slot
        self._exits: dict[tuple[str, int], Exited] = {}
        self._log = structlog.get_logger()

    @property
    def busy(self) -> bool:
        """True while a worker runs or a proof is under way."""
        return bool(self._children.workers or self._proofs)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers that run."""
        return self._children.workers

    @property
    def over(self) -> bool:
        """True once an agent that is here for one lease has served it, or nobody has wanted it for long enough."""
        limit = self._node.once_idle_seconds
        return limit > 0 and not self.busy and (self._served or self._clock() - self._busy_at >= limit)

    def hello(self) -> ConnectRequest:
        """Return the first message of a stream: what the kernel says is held, not what anybody remembers."""
        for worker in self._children.adopt(self._slots):
            self._log.info("worker_adopted", lease_id=worker.lease_id, epoch=worker.epoch, pid=worker.pid)
        hello = Hello(
            node_id=self._node.node_id,
            boot_id=self._node.boot_id,
            incarnation=self._node.incarnation,
            slots=[self._describe(slot) for slot in self._node.slots],
            held=self._held(),
            programs=self._node.programs,
            cluster_job_name=self._node.node_id if self._node.once_idle_seconds else "",
        )
        return ConnectRequest(hello=hello)

    def beat(self) -> ConnectRequest:
        """Return a sign of life."""
        self._beats += 1
        uuids = dict.fromkeys(slot.gpu_uuid for slot in self._node.slots if slot.is_gpu)
        return ConnectRequest(beat=Beat(number=self._beats, held=self._held(), gpus=self._uses(uuids)))

    def leaving(self, seconds: float) -> ConnectRequest:
        """Return the word that this agent ends, with the time that its workers have left."""
        return ConnectRequest(leaving=Leaving(reason="terminated", seconds=seconds))

    def handle(self, response: ConnectResponse) -> list[ConnectRequest]:
        """Do what the scheduler says and return what to tell it at once."""
        kind = response.WhichOneof("message")
        if response.term < self._max_term:
            self._log.warning("stale_term", term=response.term, newest=self._max_term, message=kind)
            return [_refused(response.start, "STALE_TERM")] if kind == "start" else []
        self._max_term = response.term
        if kind == "welcome":
            return self._welcome(response.welcome)
        if kind == "start":
            return self._start(response.start)
        if kind == "stop":
            return self._stop(response.stop)
        if kind == "probe":
            self._probe(response.probe)
        return []

    def tick(self) -> list[ConnectRequest]:
        """Reap workers and advance proofs; returns what happened. Call it a few times per second."""
        messages = self._look_at_gpus()
        for ended in self._children.poll():
            worker = ended.worker
            exited = self._exited(ended)
            self._log.info("worker_exited", lease_id=worker.lease_id, epoch=worker.epoch, exit_code=ended.exit_code)
            self._remember(exited)
            messages.append(ConnectRequest(exited=exited))
            self._prove(Claim(slot=self._slots[worker.slot_key], lease_id=worker.lease_id, epoch=worker.epoch))
        if self.busy:
            self._busy_at = self._clock()
        return messages + self._advance_proofs()

    def drain(self, deadline_seconds: float) -> None:
        """Start nothing more and tell every worker to finish; those that do not are killed at the deadline."""
        self._draining = True
        self.adopt()
        for worker in self._children.workers:
            self._children.stop(worker, kill=deadline_seconds <= 0, deadline_seconds=deadline_seconds)

    def adopt(self) -> None:
        """Take over the workers of an agent before us."""
        self._children.adopt(self._slots)

    # ------------------------------------------------------------------------------------------------------- messages
    def _welcome(self, welcome: Welcome) -> list[ConnectRequest]:
        kill = set(welcome.kill)
        for worker in self._children.workers:
            if worker.lease_id in kill:
                self._log.warning("worker_disowned", lease_id=worker.lease_id, epoch=worker.epoch, pid=worker.pid)
                self._children.stop(worker, kill=True)
        return [ConnectRequest(gpu_fault=fault) for fault in self._watch.grave()]

    def _start(self, start: Start) -> list[ConnectRequest]:
        remembered = self._exits.get((start.lease_id, start.epoch))
        if remembered is not None:  # it has run and ended; the scheduler did not hear of it
            return [ConnectRequest(exited=remembered)]
        if self._draining:
            return []  # unanswered: the scheduler keeps it for the agent that comes after us
        try:
            slot = self._slots.get(start.slot_key)
            if slot is None:
                raise FrazilError("NO_SLOT", f"This agent has no slot {start.slot_key}.", kind=ErrorKind.NOT_FOUND)
            self._check_memory(start, slot)
            worker = self._children.start(start, slot)
        except FrazilError as error:
            self._log.warning("start_refused", lease_id=start.lease_id, reason=error.reason, sentence=error.sentence)
            return [_refused(start, error.reason, error.sentence)]
        self._give_up_proof(start.slot_key)
        return [ConnectRequest(started=Started(lease_id=start.lease_id, epoch=start.epoch, pid=worker.pid))]

    def _stop(self, stop: Stop) -> list[ConnectRequest]:
        for worker in self._children.workers:
            if (worker.lease_id, worker.epoch) == (stop.lease_id, stop.epoch):
                kill = stop.mode == Stop.MODE_KILL
                self._children.stop(worker, kill=kill, deadline_seconds=stop.deadline_seconds)
                return []
        nobody = Exited(lease_id=stop.lease_id, epoch=stop.epoch)
        return [ConnectRequest(exited=self._exits.get((stop.lease_id, stop.epoch), nobody))]

    def _probe(self, probe: Probe) -> None:
        slot = self._slots.get(probe.slot_key)
        if slot is None:  # a slot that the configuration no longer has: only its lock can be asked
            slot = Slot(slot_key=probe.slot_key, device_name="", memory_mib=0)
        if probe.afresh:
            self._watch.forget(slot.gpu_uuid)
        self._prove(Claim(slot=slot, lease_id=probe.lease_id, epoch=probe.epoch))

    # --------------------------------------------------------------------------------------------------------- proofs
    def _prove(self, claim: Claim) -> None:
        running = self._proofs.get(claim.slot.slot_key)
        if running is not None and running.claim == claim:
            return
        self._give_up_proof(claim.slot.slot_key)
        uuid = claim.slot.gpu_uuid
        checks = GpuChecks(
            allowed_mib=lambda: self._allowed_mib(claim.slot),
            problem=lambda: self._watch.problem(uuid),
            programs=lambda: self._other_programs(uuid),
            trial=lambda: self._trial(uuid, self._clock),
        )
        self._proofs[claim.slot.slot_key] = Proof(claim, self._locks, self._gpus, checks, self._clock())

    def _give_up_proof(self, slot_key: str) -> None:
        proof = self._proofs.pop(slot_key, None)
        if proof is not None:
            proof.stop()

    def _advance_proofs(self) -> list[ConnectRequest]:
        messages = []
        for slot_key, proof in tuple(self._proofs.items()):
            problem = proof.step(self._clock())
            if problem is None:
                continue
            del self._proofs[slot_key]
            claim = proof.claim
            self._served |= bool(claim.lease_id)
            if problem:
                self._log.error("slot_not_free", slot_key=slot_key, problem=problem)
            messages.append(
                ConnectRequest(
                    proved_free=ProvedFree(slot_key=slot_key, lease_id=claim.lease_id, epoch=claim.epoch, problem=problem)
                )
            )
        return messages

    def _allowed_mib(self, slot: Slot) -> int:
        held = [other for other in self._slots.values() if other.is_gpu and self._locks.held(other.slot_key)]
        return allowed_mib(slot, self._node.baselines_mib.get(slot.gpu_uuid, 0), held)

    def _check_memory(self, start: Start, slot: Slot) -> None:
        """Refuse a start on a GPU whose memory somebody else uses. Raises FrazilError GPU_BUSY_EXTERNAL."""
        if not slot.is_gpu or self._locks.held(slot.slot_key):
            return
        free = self._gpus.free_mib(slot.gpu_uuid)
        share = start.memory_mib or slot.memory_mib
        if free is not None and free + TOLERANCE_MIB < share:
            raise FrazilError(
                "GPU_BUSY_EXTERNAL",
                f"Another program uses {slot.device_name}: {free:,} MiB are free, {share:,} MiB are needed"
                f"{self._other_programs(slot.gpu_uuid)}.",
                kind=ErrorKind.EXHAUSTED,
            )

    def _other_programs(self, gpu_uuid: str) -> str:
        """Name, as the end of a sentence, the processes on a GPU that are no worker's; nothing where the driver names none."""
        slots = [slot.slot_key for slot in self._slots.values() if slot.gpu_uuid == gpu_uuid]
        ours = {self._locks.read(slot_key).pid for slot_key in slots if self._locks.held(slot_key)}
        others = [program for program in self._gpus.programs(gpu_uuid) if program.pid not in ours]
        words = [
            f"pid {program.pid}" + (f" ({program.memory_mib:,} MiB)" if program.memory_mib is not None else "")
            for program in others[:_PROGRAMS_NAMED]
        ]
        more = [f"{len(others) - len(words)} more"] if len(others) > len(words) else []
        return f"; on it: {', '.join(words + more)}" if words else ""

    # ----------------------------------------------------------------------------------------------------------- GPUs
    def _look_at_gpus(self) -> list[ConnectRequest]:
        """Tell of grave errors. After its own error a worker that is alone on the GPU is asked to end: its context is lost."""
        running = [self._slots[worker.slot_key] for worker in self._children.workers]
        faults = self._watch.look(running)
        for fault in faults:
            self._log.error("gpu_fault", gpu=fault.gpu_uuid, xid=fault.xid, sentence=fault.sentence)
            keys = {slot.slot_key for slot in running if slot.gpu_uuid == fault.gpu_uuid}
            for worker in self._children.workers:
                if is_programs_own(fault.xid) and keys == {worker.slot_key}:
                    self._children.stop(worker, kill=False, deadline_seconds=_FAULT_GRACE_SECONDS)
        return [ConnectRequest(gpu_fault=fault) for fault in faults if not is_programs_own(fault.xid)]

    def _exited(self, ended: Ended) -> Exited:
        worker = ended.worker
        killed = self._oom.has_killed() and worker.kill_at is None and ended.exit_code == -signal.SIGKILL
        return Exited(
            lease_id=worker.lease_id,
            epoch=worker.epoch,
            exit_code=ended.exit_code,
            log_tail=worker.log.tail(),
            xids=self._watch.take(worker.slot_key),
            out_of_memory=killed or ended.exit_code == EXIT_OUT_OF_MEMORY,
        )

    def _uses(self, uuids: Iterable[str]) -> list[GpuUse]:
        found = ((uuid, self._gpus.use(uuid)) for uuid in uuids)
        return [
            GpuUse(
                gpu_uuid=uuid,
                memory_used_mib=use.memory_used_mib,
                memory_total_mib=use.memory_total_mib,
                utilization_percent=use.utilization_percent,
            )
            for uuid, use in found
            if use is not None
        ]

    # -------------------------------------------------------------------------------------------------------- records
    def _held(self) -> list[HeldSlot]:
        return [
            HeldSlot(slot_key=slot_key, lease_id=record.lease_id, epoch=record.epoch, pid=record.pid)
            for slot_key in self._slots
            if self._locks.held(slot_key)
            for record in (self._locks.read(slot_key),)
        ]

    def _describe(self, slot: Slot) -> GpuSlot:
        return GpuSlot(
            slot_key=slot.slot_key,
            node_id=self._node.node_id,
            kind=GpuSlot.KIND_GPU if slot.is_gpu else GpuSlot.KIND_CPU,
            device_name=slot.device_name,
            memory_mib=slot.memory_mib,
            gpu_memory_total_mib=slot.gpu_memory_mib,
        )

    def _remember(self, exited: Exited) -> None:
        self._exits[(exited.lease_id, exited.epoch)] = exited
        for oldest in _first(self._exits, len(self._exits) - _REMEMBERED_EXITS):
            del self._exits[oldest]


def _first(mapping: Iterable[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    return [key for _, key in zip(range(count), mapping, strict=False)]


def _refused(start: Start, reason: str, sentence: str = "") -> ConnectRequest:
    return ConnectRequest(exited=Exited(lease_id=start.lease_id, epoch=start.epoch, refused=reason, log_tail=sentence))
