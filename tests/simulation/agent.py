"""Agents: the real `Control` over a simulated machine, and the stream that carries its messages as `AgentStream` does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil.agent.children import Children, Launch, Worker
from frazil.agent.control import Control, Node
from frazil.agent.inventory import Slot
from frazil.agent.locks import LockFolder, SlotLock
from frazil.agent.out_of_memory import OomWatch
from frazil.agent.worker_log import WorkerLog
from frazil.api.agent.v1.agent_pb2 import ConnectRequest, ConnectResponse, Start
from simulation.engine import Engine
from simulation.machine import BASELINE_MIB, Machine

if TYPE_CHECKING:
    from simulation.scheduler import Scheduler

PROGRAMS = ("frazil-preprocess", "frazil-reconstruct")
TICK_SECONDS = 0.25
BEAT_SECONDS = 5.0
NOTICE_SECONDS = (1.0, 30.0)  # until keepalive finds a link dead
LATENCY_SECONDS = (0.001, 0.05)
REDIAL_SECONDS = (0.1, 5.0)
UNANSWERED = 8.0  # while nobody answers, dialling is as rare as that: nothing else follows from it


class SimulatedChildren(Children):
    """The real children but for what asks the kernel of this machine."""

    def __init__(self, machine: Machine, locks: LockFolder, clock: Callable[[], float]) -> None:
        launch = Launch(
            scheduler_address="",
            threads=1,
            boot_id=machine.boot_id,
            programs={name: Path(name) for name in PROGRAMS},
            log_folder=machine.folder / "logs",
        )
        super().__init__(locks, launch, clock)
        self._machine = machine

    def _spawn(self, order: Start, slot: Slot, program: Path, lock: SlotLock) -> Worker:
        process: Any = self._machine.spawn(slot, order.lease_id, order.epoch, order.job_type, lock.descriptor)
        log = WorkerLog(self._log_path(order.lease_id, order.epoch))
        return Worker(
            lease_id=order.lease_id, epoch=order.epoch, slot_key=slot.slot_key, pid=process.pid, log=log, process=process
        )

    def _reap(self, worker: Worker) -> tuple[bool, int | None]:
        process: Any = worker.process
        return not process.alive, process.exit_code

    def _terminate(self, worker: Worker) -> None:
        process = self._machine.processes.get(worker.pid)
        if process is not None:
            self._machine.terminate(process)

    def _kill(self, worker: Worker) -> None:
        process = self._machine.processes.get(worker.pid)
        if process is not None:
            self._machine.kill(process)


class Trial:
    """A first use of a GPU."""

    def __init__(self, machine: Machine, uuid: str) -> None:
        self._gpu = machine.gpus[uuid]

    def poll(self) -> str | None:
        return "it cannot be used: simulated fault" if self._gpu.broken else ""

    def stop(self) -> None:
        """Nothing runs."""


class Stream:
    """One connection: messages arrive in order, or, once it is broken, not at all; either side may not know."""

    def __init__(self, engine: Engine, agent: Agent) -> None:
        self.agent = agent
        self.broken_up = self.broken_down = False
        self.agent_open = self.scheduler_open = True
        self.incarnation = ""
        self.suspect = False
        self.say_at = 0.0
        self.told: dict[tuple[object, ...], float] = {}
        self._engine = engine
        self._next_up = self._next_down = 0.0

    @property
    def heard(self) -> bool:
        """Tell whether beats arrive."""
        return self.agent_open and self.scheduler_open and not self.broken_up and self.agent.running

    def up(self, act: Callable[[], None]) -> None:
        """Let something arrive at the scheduler."""
        self._next_up = max(self._next_up, self._engine.now + self._engine.between(*LATENCY_SECONDS))
        self._engine.after(
            self._next_up - self._engine.now, lambda: None if self.broken_up or not self.scheduler_open else act()
        )

    def down(self, message: ConnectResponse) -> None:
        """Let a message arrive at the agent."""
        self._next_down = max(self._next_down, self._engine.now + self._engine.between(*LATENCY_SECONDS))
        self._engine.after(self._next_down - self._engine.now, lambda: self._arrive(message))

    def _arrive(self, message: ConnectResponse) -> None:
        if not self.broken_down and self.agent_open:
            self.agent.hear(self, message)


class Agent:
    """The agent's process on a machine, which may die and be started again."""

    def __init__(self, engine: Engine, machine: Machine, scheduler: Scheduler) -> None:
        self._engine = engine
        self.machine = machine
        self._scheduler = scheduler
        self._life = 0  # an event of an earlier life does nothing
        self._deferred: list[Callable[[], None]] = []
        self._tick_at = float("inf")
        self.control: Control | None = None
        self.frozen = False
        self.stream: Stream | None = None
        self._welcomed = False
        self._outbox: deque[ConnectRequest] = deque()
        self.start()

    @property
    def running(self) -> bool:
        """Tell whether it can act now."""
        return self.control is not None and not self.frozen

    def start(self) -> None:
        """Begin a new incarnation."""
        if self.control is not None or not self.machine.powered:
            return
        self._life += 1
        machine, clock = self.machine, lambda: self._engine.now
        locks = LockFolder(machine.folder)
        node = Node(
            node_id=machine.node_id,
            boot_id=machine.boot_id,
            incarnation=f"{machine.node_id}-{self._life}",
            slots=machine.slots,
            programs=PROGRAMS,
            baselines_mib=dict.fromkeys(machine.gpus, BASELINE_MIB),
        )
        self.control = Control(
            node,
            locks,
            SimulatedChildren(machine, locks, clock),
            machine,
            clock,
            oom=OomWatch(lambda: machine.oom_kills),
            trial=lambda uuid, _: Trial(machine, uuid),
        )
        self._outbox.clear()
        self._engine.note(machine.node_id, "agent starts", self._life)
        self.control.adopt()
        self._soon(0.0, self._dial)
        self.poke()

    def crash(self) -> None:
        """Die by SIGKILL; workers live on. The scheduler's end of the stream notices at once, if the link is whole."""
        if self.control is None:
            return
        self._engine.note(self.machine.node_id, "agent dies")
        self._scheduler.last_beat(self.machine.node_id)
        self._tick_at = float("inf")
        self.control = None
        self.frozen = False
        self._deferred.clear()
        self._life += 1
        self._drop(notices=self.machine.powered)

    def freeze(self) -> None:
        """Stop without knowing."""
        self._scheduler.last_beat(self.machine.node_id)
        self.frozen = True

    def thaw(self) -> None:
        """Go on as if nothing had been."""
        self.frozen = False
        deferred, self._deferred = self._deferred, []
        for act in deferred:
            self._engine.after(0.0, act)

    def _soon(self, seconds: float, act: Callable[[], None]) -> None:
        """Act later in this life; while frozen, after that."""
        life = self._life

        def guarded() -> None:
            if life != self._life:
                return
            if self.frozen:
                self._deferred.append(guarded)
            else:
                act()

        self._engine.after(seconds, guarded)

    # ------------------------------------------------------------------------------------------------------------ ticks
    def poke(self) -> None:
        """Something has happened on the machine that the next tick sees."""
        if self.control is not None:
            self._tick_by(self._engine.now + TICK_SECONDS)

    def _tick_by(self, when: float) -> None:
        if when < self._tick_at:
            self._tick_at = when
            self._soon(when - self._engine.now, lambda: self._tick(when))

    def _tick(self, when: float) -> None:
        if when != self._tick_at or self.control is None:
            return
        self._tick_at = float("inf")
        self._post(self.control.tick())
        if self.control._proofs:
            self._tick_by(self._engine.now + 1.0)
        for worker in self.control.workers:
            if worker.kill_at is not None:
                self._tick_by(max(worker.kill_at, self._engine.now + 1.0))

    # ----------------------------------------------------------------------------------------------------- the stream
    def _dial(self) -> None:
        if self.stream is not None or self.control is None:
            return
        if not (self.machine.linked and self._scheduler.answers):
            self._soon(self._engine.between(*REDIAL_SECONDS) * UNANSWERED, self._dial)
            return
        self.stream = stream = Stream(self._engine, self)
        self._welcomed = False
        hello = self.control.hello().hello
        stream.up(lambda: self._scheduler.connect(stream, hello))

    def lose(self, stream: Stream) -> None:
        """The agent's end of a stream is over."""
        if stream.agent_open:
            stream.agent_open = False
            if self.stream is stream:
                self.stream = None
                self._soon(self._engine.between(*REDIAL_SECONDS), self._dial)

    def cut(self) -> None:
        """The link breaks, perhaps one way only; each end learns of it in its own time."""
        stream = self.stream
        if stream is None:
            return
        self._scheduler.last_beat(self.machine.node_id)
        way = self._engine.random.choice(("both", "both", "up", "down"))
        stream.broken_up, stream.broken_down = way != "down", way != "up"
        self._soon(self._engine.between(*NOTICE_SECONDS), lambda: self.lose(stream))
        self._engine.after(self._engine.between(*NOTICE_SECONDS), lambda: self._scheduler.lose(stream))

    def _drop(self, *, notices: bool) -> None:
        stream, self.stream = self.stream, None
        if stream is None:
            return
        stream.agent_open = False
        after = self._engine.between(0.0, 0.1) if notices and self.machine.linked else self._engine.between(*NOTICE_SECONDS)
        self._engine.after(after, lambda: self._scheduler.lose(stream))

    def hear(self, stream: Stream, message: ConnectResponse) -> None:
        """Take a message from the scheduler."""

        def act() -> None:
            if self.stream is not stream or self.control is None:
                return
            self._welcomed = True
            self._engine.note(self.machine.node_id, "hears", message.WhichOneof("message"))
            self._post(self.control.handle(message))
            self._send()
            self.poke()

        self._soon(0.0, act)

    def _post(self, messages: list[ConnectRequest]) -> None:
        self._outbox.extend(messages)
        self._send()

    def _send(self) -> None:
        """Write what waits; what is written to a broken stream is lost, as in a socket's buffer."""
        stream = self.stream
        if stream is None or not self._welcomed:
            return
        while self._outbox:
            message = self._outbox.popleft()
            stream.up(lambda message=message: self._scheduler.hear(stream, message))  # type: ignore[misc]
