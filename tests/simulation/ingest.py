"""Ingest: the real scanner of each running session, swept as `frazil_ingest.follow` does, but not while nothing has changed."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select

from frazil.api.exposure.v1.exposure_pb2 import RegisterExposuresRequest
from frazil.api.session.v1.session_pb2 import Session
from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.convert import metadata_to_message
from frazil_ingest.scanner import MovieFound, SessionScanner
from frazil_ingest.settling import Patience
from frazil_scheduler.domain import exposures, sessions
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction
from simulation.disk import Disk
from simulation.engine import Engine
from simulation.scheduler import Scheduler

SWEEP_SECONDS = 5.0
IDLE_SECONDS = 1800.0
AWAKE_SECONDS = 15.0
RETRY_SECONDS = 30.0


class Ingest:
    """The service's process, which may die and be started again."""

    def __init__(self, engine: Engine, scheduler: Scheduler, disk: Disk) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._disk = disk
        self._scanners: dict[str, SessionScanner] = {}
        self._sweep_at: dict[str, float] = {}
        self._unsure: set[str] = set()  # sessions of which the ledger may know more
        self._awake_until: dict[str, float] = {}
        self.running = True

    def crash(self) -> None:
        """Forget everything."""
        self.running = False
        self._scanners.clear()
        self._engine.note("ingest dies")

    def start(self) -> None:
        self.running = True

    def news(self, session_id: str) -> None:
        """Something has changed in a session's folder, or with the session: the sweeps of the next time see it."""
        self._awake_until[session_id] = self._engine.now + AWAKE_SECONDS
        self._come_back(session_id, SWEEP_SECONDS)

    def _come_back(self, session_id: str, seconds: float) -> None:
        when = self._engine.now + self._engine.between(seconds / 2, seconds)
        if when < self._sweep_at.get(session_id, float("inf")):
            self._sweep_at[session_id] = when
            self._engine.after(when - self._engine.now, partial(self._sweep, session_id, when))

    def _sweep(self, session_id: str, when: float) -> None:
        if self._sweep_at.get(session_id) != when:
            return
        del self._sweep_at[session_id]
        settling = False
        if self.running:
            try:
                settling = self._follow(session_id)
            except FrazilError as error:
                if error.kind is not ErrorKind.UNAVAILABLE:
                    raise
                self._come_back(session_id, RETRY_SECONDS)
                return
        awake = settling or self._engine.now < self._awake_until.get(session_id, 0.0)
        self._come_back(session_id, SWEEP_SECONDS if awake else IDLE_SECONDS)

    def _follow(self, session_id: str) -> bool:
        """Sweep once; tell whether there is something to come back for soon."""
        session = self._scheduler.read(lambda tx: records.session_record(sessions.require(tx, session_id)))
        if session.state not in (Session.STATE_RUNNING, Session.STATE_COMPLETING):
            self._scanners.pop(session_id, None)
            return False
        scanner = self._scanners.get(session_id)
        if scanner is None:
            scanner = SessionScanner(session.parameters, lambda: self._engine.now, Patience(), self._disk.check)
            self._scanners[session_id] = scanner
            self._unsure.add(session_id)
        if session_id in self._unsure:
            scanner.restore(self._scheduler.read(lambda tx: _registered(tx, session_id)))
            self._unsure.remove(session_id)
        found = scanner.sweep()
        wanted = [movie for movie in found if self._is_wanted(session, scanner, movie)]
        if wanted:
            self._register(session_id, scanner, wanted)
        return bool(found) or scanner.status().files_settling > 0

    def _is_wanted(self, session: Session, scanner: SessionScanner, movie: MovieFound) -> bool:
        if not movie.gone_exposure_id and session.state == Session.STATE_RUNNING:
            return True
        exposure_id = movie.gone_exposure_id or scanner.exposure_id(movie)
        row = self._scheduler.read(lambda tx: exposures.find(tx, exposure_id))
        if not movie.gone_exposure_id:
            return row is not None and row["state"] in ("READY", "RUNNING")
        if row is not None and row["state"] in ("DONE", "QUARANTINED"):
            scanner.registered(movie, row["exposure_id"])
        if row is not None and row["state"] == "QUARANTINED":
            scanner.may_be_retried(movie)
        return row is not None and row["state"] == "READY"

    def _register(self, session_id: str, scanner: SessionScanner, movies: list[MovieFound]) -> None:
        requests = [
            RegisterExposuresRequest(session_id=session_id, file=movie.file, metadata=metadata_to_message(movie.metadata))
            for movie in movies
        ]
        self._unsure.add(session_id)
        replies = self._scheduler.transact(lambda tx: exposures.register_all(tx, requests))
        if self._engine.chance(0.03):
            return  # the replies are lost: everything is found again
        self._unsure.remove(session_id)
        for movie, reply in zip(movies, replies, strict=True):
            if not reply.refused:
                scanner.registered(movie, reply.exposure_id)
                self._engine.note("registered", reply.exposure_id, movie.file.relative_path, movie.file.defect)


def _registered(tx: Transaction, session_id: str) -> list:  # type: ignore[type-arg]
    rows = tx.all(select(tables.exposure).where(tables.exposure.c.session_id == session_id).order_by(tables.exposure.c.number))
    return [records.exposure_record(row) for row in rows]
