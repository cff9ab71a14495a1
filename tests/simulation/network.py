"""Calls of processes over a network that loses requests and replies, delays them, and executes late what nobody awaits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import workers
from frazil_scheduler.servicers.worker import WAIT_MAX_SECONDS
from simulation.engine import Engine
from simulation.machine import Process
from simulation.scheduler import Scheduler
from simulation.workers import EXIT_LEASE_LOST, Ask, LeaseLost, Rest, Shell, Superseded

LATENCY_SECONDS = (0.001, 0.05)
DEADLINE_SECONDS = 30.0
HEARTBEAT_SECONDS = 1200.0  # seldom: a stop also arrives as a signal, a lost lease with the next call


@dataclass
class Chances:
    """How often a call goes wrong."""

    request_lost: float = 0.01
    reply_lost: float = 0.01
    late: float = 0.01  # the request is executed after its caller has given it up


class Runner:
    """Moves one worker's generator forward."""

    def __init__(self, engine: Engine, scheduler: Scheduler, chances: Chances, process: Process, shell: Shell) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._chances = chances
        self._process = process
        self._shell = shell
        self._asked: Ask | None = None
        process.body = shell.run()
        process.wake = self._wake
        engine.after(engine.between(0.5, 3.0), partial(self._when_awake, partial(self._go_on, process.waits, None)))
        engine.after(HEARTBEAT_SECONDS, self.heartbeat)

    # ------------------------------------------------------------------------------------------------------ the process
    def _when_awake(self, act: Callable[[], None]) -> None:
        """Do something in the process: not when it is dead, later when it is frozen."""
        if not self._process.alive:
            return
        if self._process.frozen:
            self._process.pending.append(partial(self._when_awake, act))
        else:
            act()

    def _go_on(self, waits: int, value: Any, error: Exception | None = None) -> None:
        """Hand the generator what it has waited for, if it still does."""
        process = self._process
        if waits != process.waits or process.body is None or process.hung:
            return
        process.waits += 1
        self._asked = None
        try:
            step = process.body.send(value) if error is None else process.body.throw(error)
        except StopIteration as end:
            process.machine.exit(process, end.value)
            return
        if isinstance(step, Rest):
            later = partial(self._when_awake, partial(self._go_on, process.waits, None))
            self._engine.after(step.seconds, later)
        else:
            self._asked = step
            self._call(process.waits, step)

    def _wake(self) -> None:
        """A stop is asked for: what waits for the session's news waits no longer than one call does."""
        if self._asked is not None and self._asked.empty is not None:
            stopped = partial(self._go_on, self._process.waits, _stopped(self._asked))
            self._engine.after(self._engine.between(0.0, 10.0), partial(self._when_awake, stopped))

    def link_is_cut(self) -> None:
        """A call that waits finds out, and is made again."""
        if self._asked is not None and self._asked.empty is not None:
            again = partial(self._when_awake, partial(self._call, self._process.waits, self._asked))
            self._engine.after(self._engine.between(1.0, 30.0), again)

    def heartbeat(self) -> None:
        """Ask whether the lease is current."""
        if not self._process.alive:
            return
        self._engine.after(HEARTBEAT_SECONDS, self.heartbeat)
        if self._process.frozen or not self._reachable:
            return
        try:
            stop = self._scheduler.read(lambda tx: workers.should_stop(tx, self._shell.token))
        except FrazilError as error:
            if error.kind in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND):
                self._process.machine.exit(self._process, EXIT_LEASE_LOST)
            return
        if stop and not self._process.stop_requested:
            self._process.machine.terminate(self._process)

    # --------------------------------------------------------------------------------------------------------- the wire
    @property
    def _reachable(self) -> bool:
        return self._process.machine.linked and self._scheduler.answers

    def _call(self, waits: int, ask: Ask) -> None:
        """Send a request, or send it again."""
        if waits != self._process.waits:
            return
        again = partial(self._when_awake, partial(self._call, waits, ask))
        engine, chances = self._engine, self._chances
        if not self._reachable or engine.chance(chances.request_lost):
            if ask.empty is not None and self._process.stop_requested:  # a worker that is to stop gives up waiting
                self._go_on(waits, _stopped(ask))
                return
            engine.after(engine.between(0.2, 20.0), again)
            return
        delay = engine.between(*LATENCY_SECONDS)
        if not ask.reads and engine.chance(chances.late):
            delay = engine.between(DEADLINE_SECONDS, 4 * DEADLINE_SECONDS)
            engine.after(DEADLINE_SECONDS, again)
        lost = partial(engine.after, engine.between(0.2, 20.0), again)
        engine.after(delay, partial(self._scheduler.when_running, partial(self._serve, waits, ask, again), lost))

    def _serve(self, waits: int, ask: Ask, again: Callable[[], None]) -> None:
        """Do at the scheduler what is asked, or hold the call back until the session has news."""
        engine = self._engine
        try:
            reply = self._scheduler.read(ask.body) if ask.reads else self._scheduler.transact(ask.body)
        except FrazilError as error:
            engine.note("refuses", ask.name, self._process.lease_id, error.reason)
            self._answer(waits, None, again, error)
            return
        in_vain = ask.empty is not None and ask.empty(reply)
        if in_vain and not self._process.hung:
            self._scheduler.asked_in_vain(self._process.lease_id)
        if in_vain and not self._process.stop_requested:
            retry = ask.retry()
            retry = WAIT_MAX_SECONDS if retry is not None and retry <= 0 else retry
            topic = f"session:{self._shell.session_id}"
            self._scheduler.wait(topic, partial(self._serve_again, waits, ask, again), again, retry)
        else:
            self._answer(waits, reply, again, None)

    def _serve_again(self, waits: int, ask: Ask, again: Callable[[], None]) -> None:
        """A call whose caller is gone is known to be over, unless the link died with it."""
        if (self._process.alive and waits == self._process.waits) or self._engine.chance(0.2):
            self._serve(waits, ask, again)

    def _answer(self, waits: int, reply: Any, again: Callable[[], None], error: FrazilError | None) -> None:
        engine = self._engine
        if error is not None and error.kind is ErrorKind.UNAVAILABLE:
            engine.after(engine.between(0.2, 5.0), again)
            return
        if not self._process.machine.linked or engine.chance(self._chances.reply_lost):
            engine.after(engine.between(1.0, DEADLINE_SECONDS), again)
            return
        raised = None if error is None else self._raised(error)
        act = partial(self._when_awake, partial(self._go_on, waits, reply, raised))
        engine.after(engine.between(*LATENCY_SECONDS), act)

    def _raised(self, error: FrazilError) -> Exception:
        if error.kind not in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND):
            raise error
        return Superseded() if error.reason == "ATTEMPT_SUPERSEDED" else LeaseLost()


def _stopped(ask: Ask) -> Any:
    """Return what `WorkerContext` makes of a waiting call that a stop ends."""
    if ask.name == "claim":
        return worker_pb2.ClaimExposuresResponse(stop=True)
    return worker_pb2.ReadParticleBlocksResponse(stop=True)
