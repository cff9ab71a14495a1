"""The scheduler's process around the real ledger and domain: streams, waiting calls, ticks, crashes within transactions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import select

from frazil.api.agent.v1 import agent_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.clock import Clock
from frazil_scheduler.domain import gpus, limits, nodes, upkeep
from frazil_scheduler.lanes.node import Backend
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction
from simulation.agent import NOTICE_SECONDS, Stream
from simulation.engine import Engine
from simulation.files import LedgerFiles

Value = TypeVar("Value")

IDLE_TICK_SECONDS = 1800.0
_REPORTS: dict[str, Callable[..., None]] = {
    "started": nodes.started,
    "exited": nodes.exited,
    "proved_free": nodes.proved_free,
    "gpu_fault": gpus.faulty,
    "leaving": nodes.leaving,
}
_DUE = """
SELECT min(due) FROM (
  SELECT min(overdue_mono) AS due FROM lease WHERE state = 'RELEASING'
  UNION ALL SELECT min(l.stop_mono) FROM lease l JOIN job j ON j.job_id = l.job_id
    WHERE l.state = 'HELD' AND j.state IN ('DONE', 'FAILED', 'CANCELLED')
  UNION ALL SELECT min(not_before_mono) FROM job WHERE state = 'WAITING' AND not_before_mono > {since}
  UNION ALL SELECT min(not_before_mono) FROM exposure WHERE state = 'READY' AND not_before_mono > {since}
  UNION ALL SELECT min(progress_mono + 600) FROM job WHERE state = 'RUNNING' AND progress_mono + 600 > {since}
  UNION ALL SELECT min(progress_mono + 1800) FROM job WHERE state = 'RUNNING' AND progress_mono + 1800 > {since})
"""


class Crash(BaseException):
    """The process is killed here."""


@dataclass(slots=True)
class Waiting:
    """A call that is held back."""

    act: Callable[[], None]
    broken: Callable[[], None]
    over: bool = False


class Scheduler:
    """One scheduler after the other on the same ledger."""

    def __init__(self, engine: Engine, folder: Path, law: Callable[[Transaction], None]) -> None:
        self._engine = engine
        self._law = law
        self._files = LedgerFiles(folder)
        self.lanes = {"default": Backend("default", {}), "two": Backend("two", {"nodes": ["n2", "n3"]})}
        self.wall_offset = 1.7e9
        self._mono_offset = 0.0
        self._tokens = (f"id{number:06d}" for number in itertools.count(1))
        self._clock = Clock(
            monotonic=lambda: self.mono,
            wall_ns=lambda: int((engine.now + self.wall_offset) * 1e9),
            token=lambda: next(self._tokens),
        )
        self.store: Store | None = None
        self.life = 0
        self._crash = ""  # how to die in one of the next transactions
        self._crash_in = 0
        self.on_death: Callable[[], None] = lambda: None
        self._frozen_until = 0.0
        self.troubled_at = 0.0  # when it last was dead, frozen, or without its ledger
        self._deferred: list[Callable[[], None]] = []
        self.streams: dict[str, Stream] = {}
        self._seen: dict[str, float] = {}
        self.asked: dict[str, float] = {}
        self._waiting: dict[str, list[Waiting]] = {}  # calls by topic
        self._tick_at = float("inf")
        self._ticked = 0.0
        self._topics: set[str] = set()
        self._staged: list[Callable[[], None]] = []
        self.start()

    @property
    def mono(self) -> float:
        """The scheduler's monotonic clock, which begins anew when its host boots."""
        return self._engine.now - self._mono_offset

    @property
    def answers(self) -> bool:
        """Tell whether somebody listens at its address."""
        return self.store is not None

    # ----------------------------------------------------------------------------------------------- birth and death
    def start(self) -> None:
        """Begin a term."""
        if self.store is not None:
            return
        self.life += 1
        self.asked = {}
        self.troubled_at = self._engine.now
        self.store = Store(self._files.path, self._clock, finish=self._finish, committed=self._committed)
        self._engine.note("scheduler starts", self.store.term)
        self._tick_at = float("inf")
        self.transact(upkeep.begin)
        if self.store is None:
            return
        rows = self.store.read(lambda tx: tx.all(select(tables.node).order_by(tables.node.c.node_id)))
        self._seen = {row["node_id"]: self._engine.now for row in rows if row["state"] != "ENDED"}
        self._tick_by(self._engine.now + 1.0)

    def crash(self, how: str, transactions: int = 0) -> None:
        """Die by SIGKILL: now, or in a coming transaction "before" its commit, in a "torn" one, or "after" it."""
        self._crash, self._crash_in = how, transactions
        if how == "now":
            self._files.leave(self._engine.random)
            self._die()

    def host_reboots(self) -> None:
        """Let the monotonic clock begin anew; the scheduler must be dead."""
        self._mono_offset = self._engine.now - self._engine.between(1.0, 100.0)

    def _die(self) -> None:
        self._crash = ""
        store, self.store = self.store, None
        if store is not None:
            store.close()
            self._files.forget_dead()
        self._engine.note("scheduler dies")
        for call in [call for calls in self._waiting.values() for call in calls if not call.over]:
            self._engine.after(self._engine.between(0.1, 10.0), call.broken)
        self._waiting.clear()
        self._thaw_now()
        for stream in list(self.streams.values()):
            stream.scheduler_open = False
            seconds = (0.0, 0.1) if stream.agent.machine.linked else NOTICE_SECONDS
            self._engine.after(self._engine.between(*seconds), partial(stream.agent.lose, stream))
        self.streams.clear()
        self.on_death()

    def give_up_crash(self) -> None:
        """Die not, if that has not happened yet."""
        self._crash = ""

    # --------------------------------------------------------------------------------------------------- transactions
    def transact(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `body` in a transaction. Raises FrazilError LEDGER_UNAVAILABLE or SCHEDULER_DEAD."""
        if self.store is None:
            raise _dead()
        self._staged.clear()
        planned = self._crash if self._crash and self._crash_in <= 0 else ""
        self._crash_in -= 1
        mark = self._files.mark()
        try:
            value = self.store.transact(body)
        except FrazilError as error:
            self.troubled_at = self._engine.now if error.reason == "LEDGER_UNAVAILABLE" else self.troubled_at
            raise
        except Crash:
            self._die()
            raise _dead() from None
        torn = planned == "torn" and self._files.can_tear(mark)
        for act in () if torn else self._staged:
            act()
        if planned:
            self._files.leave(self._engine.random, torn_after=mark[0] if torn else 0)
            self._die()
            raise _dead()
        return value

    def once_durable(self, act: Callable[[], None]) -> None:
        """Do something as soon as the running transaction is durable, whoever hears of it."""
        self._staged.append(act)

    def read(self, body: Callable[[Transaction], Value]) -> Value:
        """Do `body`, which only reads."""
        if self.store is None:
            raise _dead()
        return self.store.read(body)

    def asked_in_vain(self, lease_id: str) -> None:
        """Note that a worker has asked for work and there was none, as the hub does."""
        self.asked[lease_id] = self.mono

    def _finish(self, tx: Transaction) -> None:
        upkeep.finish(tx, self.lanes)
        self._law(tx)
        if self._crash == "before" and self._crash_in < 0:
            self._files.leave(self._engine.random)
            raise Crash

    def _committed(self, done: Sequence[Transaction]) -> None:
        for tx in done:
            for event in tx.events:
                self._engine.note("event", event.sequence, event.kind, event.session_id)
            if tx.topics and not self._topics:
                self._engine.after(0.0, partial(self._notify, self.life))
            self._topics |= tx.topics
        self._tick_by(self._engine.now + 1.0)

    def _notify(self, life: int) -> None:
        topics, self._topics = sorted(self._topics), set()
        if life != self.life or self.store is None:
            return
        for topic in topics:
            for call in self._waiting.pop(topic, ()):
                self.when_running(partial(self._call_back, call), lost=call.broken)
            if topic.startswith("node:") and topic[5:] in self.streams:
                self._say(self.streams[topic[5:]])

    # ----------------------------------------------------------------------------------------------------------- time
    def freeze(self, seconds: float) -> None:
        """Stop the process without its knowing."""
        self._frozen_until = max(self._frozen_until, self._engine.now + seconds)
        self._engine.after(seconds, self._thaw)

    def _thaw(self) -> None:
        if self._engine.now >= self._frozen_until:
            self._thaw_now()

    def _thaw_now(self) -> None:
        self.troubled_at = self._engine.now
        self._frozen_until = 0.0
        deferred, self._deferred = self._deferred, []
        for act in deferred:
            act()

    def when_running(self, act: Callable[[], None], lost: Callable[[], None] = lambda: None) -> None:
        """Do something now, or once the process runs again; `lost` is for when it is dead by then."""
        life = self.life

        def guarded() -> None:
            (act if self.store is not None and life == self.life else lost)()

        if self.store is not None and self._engine.now < self._frozen_until:
            self._deferred.append(guarded)
        else:
            guarded()

    def _tick_by(self, when: float) -> None:
        if when < self._tick_at:
            self._tick_at = when
            self._engine.after(when - self._engine.now, partial(self.when_running, partial(self._look, when)))

    def _look(self, when: float) -> None:
        """Tick if something is due, and come again when something will be."""
        if when != self._tick_at:
            return
        self._tick_at = float("inf")
        if self._engine.now >= self._due():
            self.tick()
        if self.store is not None:
            self._tick_by(max(self._engine.now + 1.0, self._due()))

    def _due(self) -> float:
        if self.store is None:
            return float("inf")
        statement = _DUE.format(since=self._ticked - self._mono_offset)
        due = self.store.read(lambda tx: tx.connection.exec_driver_sql(statement).scalar())
        silences = [
            self._seen[node_id] + seconds
            for node_id, at in self._seen.items()
            for seconds in (limits.SUSPECT_SECONDS, limits.LOST_SECONDS)
            if not (node_id in self.streams and self.streams[node_id].heard) and at + seconds > self._ticked
        ]
        idle = self._ticked + IDLE_TICK_SECONDS
        return min([idle, *silences, idle if due is None else due + self._mono_offset])

    def tick(self) -> None:
        """Do what `Scheduler.tick` of the service does."""
        self._ticked = now = self._engine.now
        for node_id, stream in self.streams.items():
            if stream.heard:
                self._seen[node_id] = now
        silence = {node_id: now - seen for node_id, seen in self._seen.items()}
        for node_id, stream in self.streams.items():
            stream.suspect = stream.suspect or silence[node_id] >= limits.SUSPECT_SECONDS
        try:
            self.transact(partial(upkeep.tick, silence=silence, asked=self.asked, lanes=self.lanes))
        except FrazilError as error:
            if error.reason == "LEDGER_UNAVAILABLE":
                self._seen = dict.fromkeys(self._seen, now)
            return
        for node_id, seconds in silence.items():
            if seconds >= limits.LOST_SECONDS and node_id in self.streams:
                self._close(self.streams.pop(node_id))

    # -------------------------------------------------------------------------------------------------------- streams
    def connect(self, stream: Stream, hello: agent_pb2.Hello) -> None:
        """Take a new stream."""
        self.when_running(partial(self._connect, stream, hello), lost=partial(stream.agent.lose, stream))

    def _connect(self, stream: Stream, hello: agent_pb2.Hello) -> None:
        older = self.streams.pop(hello.node_id, None)
        if older is not None:
            self._close(older)
        stream.incarnation = hello.incarnation
        self.streams[hello.node_id] = stream
        self._seen[hello.node_id] = self._engine.now
        try:
            welcome = self.transact(partial(nodes.hello, message=hello))
        except FrazilError as error:
            self._end_of_stream(stream, error)
            return
        self._engine.note("hello", hello.node_id, "adopt", *welcome.adopt, "kill", *welcome.kill)
        if self.store is not None:
            stream.down(agent_pb2.ConnectResponse(term=self.store.term, welcome=welcome))
            self._say(stream)

    def hear(self, stream: Stream, message: agent_pb2.ConnectRequest) -> None:
        """Take an agent's message."""
        self.when_running(partial(self._hear, stream, message))

    def _hear(self, stream: Stream, message: agent_pb2.ConnectRequest) -> None:
        node_id = stream.agent.machine.node_id
        if self.streams.get(node_id) is not stream:
            return
        self._seen[node_id] = self._engine.now
        kind = message.WhichOneof("message") or ""
        try:
            if stream.suspect:
                stream.suspect = False
                self.transact(partial(nodes.heard, node_id=node_id))
            self.transact(partial(_REPORTS[kind], node_id=node_id, message=getattr(message, kind)))
        except FrazilError as error:
            self._end_of_stream(stream, error)

    def _end_of_stream(self, stream: Stream, error: FrazilError) -> None:
        """An error ends the stream's call; the agent dials in again."""
        if error.kind is not ErrorKind.UNAVAILABLE:
            raise error
        self._close(stream)
        self.lose(stream)

    def lose(self, stream: Stream) -> None:
        """The scheduler's end of a stream is over."""
        node_id = stream.agent.machine.node_id
        stream.scheduler_open = False
        if self.store is None or self.streams.get(node_id) is not stream:
            return
        del self.streams[node_id]
        try:
            self.transact(partial(nodes.bye, node_id=node_id, incarnation=stream.incarnation))
        except FrazilError:
            self._engine.note("goodbye not noted", node_id)

    def _close(self, stream: Stream) -> None:
        stream.scheduler_open = False
        if not stream.broken_down:
            self._engine.after(self._engine.between(0.0, 0.1), partial(stream.agent.lose, stream))

    def _say(self, stream: Stream) -> None:
        """Tell an agent what the ledger wants, each order again after its time."""
        node_id = stream.agent.machine.node_id
        if self.store is None or self.streams.get(node_id) is not stream:
            return
        orders = self.read(lambda tx: nodes.orders(tx, node_id))
        now = self._engine.now
        told = {order.key: stream.told[order.key] for order in orders if order.key in stream.told}
        wait = float("inf")
        for order in orders:
            since = now - told.get(order.key, now - order.again_seconds)
            if since >= order.again_seconds:
                stream.down(order.message)
                told[order.key] = now
                since = 0.0
            wait = min(wait, order.again_seconds - since)
        stream.told = told
        if orders and not now < stream.say_at <= now + wait + 0.1:
            stream.say_at = now + max(0.05, wait)
            self._engine.after(stream.say_at - now, partial(self.when_running, partial(self._say, stream)))

    def last_beat(self, node_id: str) -> None:
        """From now on a node's beats do not arrive."""
        if node_id in self.streams and self.streams[node_id].heard:
            self._seen[node_id] = self._engine.now
        self._tick_by(self._engine.now + limits.SUSPECT_SECONDS)

    # ---------------------------------------------------------------------------------------------------------- calls
    def wait(self, topic: str, act: Callable[[], None], broken: Callable[[], None], seconds: float | None) -> None:
        """Act once when a topic has changed or after so many seconds; `broken` is for when this process dies first."""
        call = Waiting(act, broken)
        self._waiting.setdefault(topic, []).append(call)
        if seconds is not None:
            self._engine.after(seconds + 0.01, partial(self.when_running, partial(self._call_back, call)))

    def _call_back(self, call: Waiting) -> None:
        if not call.over:
            call.over = True
            call.act()


def _dead() -> FrazilError:
    return FrazilError("SCHEDULER_DEAD", "Nobody answers.", kind=ErrorKind.UNAVAILABLE)
