"""Everything that runs: scheduler, three machines with agents and workers, ingest, a microscope; and what must always hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import structlog
from sqlalchemy import select

from frazil.agent.inventory import Gpu, Slot, gpu_slots
from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import jobs, leases, sessions, validation
from frazil_scheduler.ledger import tables
from frazil_scheduler.ledger.store import Store
from frazil_scheduler.ledger.transaction import Transaction
from model import laws
from model.world import World
from simulation.agent import Agent
from simulation.disk import Disk
from simulation.engine import Engine
from simulation.ingest import Ingest
from simulation.machine import BASELINE_MIB, Machine, Process
from simulation.network import Chances, Runner
from simulation.scheduler import Scheduler
from simulation.workers import Shell

GPU_MIB = 24_576
SLOTS_OF_GPUS = {"n1": (1, 1), "n2": (1,), "n3": (2,)}


class Facility:
    """The whole of one run. Also what `model.laws` calls a world."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.chances = Chances()
        self.accepted: dict[str, int] = {}  # exposure to particles, as the ledger has accepted them
        self.workers: dict[str, Process] = {}  # live processes by lease
        self.runners: dict[str, Runner] = {}
        self.watch = laws.Watch()
        self.sessions: dict[str, str] = {}
        self._checked_epoch = 0
        self.scheduler = Scheduler(engine, folder / "ledger", self._law)
        self.disk = Disk(folder / "movies", lambda: int((engine.now + 1.7e9) * 1e9))
        self.disk.folder.mkdir()
        self.machines = {node_id: self._machine(node_id, folder) for node_id in SLOTS_OF_GPUS}
        self.agents: dict[str, Agent] = {}
        self.ingest = Ingest(engine, self.scheduler, self.disk)

    def begin(self) -> None:
        """Start the agents."""
        for node_id, machine in self.machines.items():
            self.agents[node_id] = Agent(self.engine, machine, self.scheduler)

    def close(self) -> None:
        """Let go of files and locks."""
        for machine in self.machines.values():
            for process in list(machine.processes.values()):
                os.close(process.descriptor)
        if self.scheduler.store is not None:
            self.scheduler.store.close()

    def _machine(self, node_id: str, folder: Path) -> Machine:
        slots: list[Slot] = []
        for index, count in enumerate(SLOTS_OF_GPUS[node_id]):
            gpu = Gpu(uuid=f"GPU-{node_id}-{index}", name="simulated", memory_mib=GPU_MIB, index=index)
            slots.extend(gpu_slots(gpu, BASELINE_MIB, count=count))
        locks = folder / node_id
        locks.mkdir()
        return Machine(self.engine, node_id, tuple(slots), locks, self._launched, self._ended)

    # ------------------------------------------------------------------------------------ what `model.laws` needs to see
    @property
    def store(self) -> Store:
        assert self.scheduler.store is not None
        return self.scheduler.store

    @property
    def mono(self) -> float:
        return self.scheduler.mono

    @property
    def lanes(self) -> Any:
        return self.scheduler.lanes

    def second_look(self) -> None:
        World.second_look(self)  # type: ignore[arg-type]

    def rows(self, table: Any, *where: Any) -> list[Any]:
        """Return a table's rows."""
        return list(self.scheduler.read(lambda tx: tx.all(select(table).where(*where))))

    # -------------------------------------------------------------------------------------------------------- processes
    def _launched(self, process: Process) -> None:
        """L1, L3: a process runs alone on its slot, and its lease was durable before."""
        assert all(other.slot_key != process.slot_key for other in self.workers.values()), "L1: two processes on a slot"
        if self.scheduler.store is not None:
            row = self.scheduler.read(lambda tx: leases.find(tx, process.lease_id))
            assert row is not None, "L3: a process whose lease is not in the ledger"
            assert (row["epoch"], row["slot_key"]) == (process.epoch, process.slot_key), "L3: another lease"
            assert row["state"] != "CLOSED", "L2: a process begins under a closed lease"
        self.workers[process.lease_id] = process
        shell = Shell(self.engine, self.disk, process, self._accepts)
        self.runners[process.lease_id] = Runner(self.engine, self.scheduler, self.chances, process, shell)

    def _ended(self, process: Process) -> None:
        del self.workers[process.lease_id], self.runners[process.lease_id]
        self.agents[process.machine.node_id].poke()

    def _accepts(self, tx: Transaction, process: Process, exposure_id: str, particles: int) -> None:
        """L4: a commit counts only under the job's newest lease, while that binds it."""
        row = leases.find(tx, process.lease_id)
        job = jobs.find(tx, row["job_id"]) if row is not None else None
        assert row is not None, "L4: a commit without a lease"
        assert job is not None, "L4: a commit without a job"
        assert (row["epoch"], job["epoch"]) == (process.epoch, process.epoch), "L4: a commit of an older epoch is accepted"
        assert not row["released"], "L4: a commit under a lease that has let go of its job is accepted"
        self.scheduler.once_durable(lambda: self.accepted.__setitem__(exposure_id, particles))

    # ------------------------------------------------------------------------------------------------------------ laws
    def _law(self, tx: Transaction) -> None:
        """What must hold at the end of every transaction: F1, and L2: no process on a slot that the ledger takes for free."""
        laws.check_order(self, self.watch, tx)  # type: ignore[arg-type]
        if not any(topic.startswith("lease:") for topic in tx.topics):
            return
        held = sorted({process.slot_key for process in self.workers.values()})
        lease, slot = tables.lease.c, tables.slot.c
        known = {
            row["slot_key"] for row in tx.all(select(lease.slot_key).where(lease.slot_key.in_(held), lease.state != "CLOSED"))
        }
        known |= {
            row["slot_key"] for row in tx.all(select(slot.slot_key).where(slot.slot_key.in_(held), slot.stray_lease_id != ""))
        }
        assert set(held) <= known, f"L2: the ledger takes {sorted(set(held) - known)} for free while a process lives there"

    def check(self) -> None:
        """Check every law."""
        if self.scheduler.store is not None:
            laws.check_all(self, self.watch)  # type: ignore[arg-type]

    def left_to_do(self) -> list[str]:
        """Return the movies whose newest content has not had its effect."""
        exposure = tables.exposure.c
        found = []
        for path, movie in self.disk.movies.items():
            session_id = self.sessions[path.parent.name]
            rows = self.rows(tables.exposure, exposure.session_id == session_id, exposure.relative_path == path.name)
            good = movie.whole and movie.nature == "good"
            state = rows[0]["state"] if rows else "unknown"
            file = exposure_pb2.MovieFile.FromString(rows[0]["file"]) if rows else exposure_pb2.MovieFile()
            if state != ("DONE" if good else "QUARANTINED") or (file.modified_ns != movie.modified_ns):
                found.append(f"{path.parent.name}/{path.name}, {movie.nature}, is {state}")
        return found

    def left_over(self) -> list[str]:
        """Return what must not be there once every session is completed."""
        found = [f"worker {process.job_type} of lease {process.lease_id}" for process in self.workers.values()]
        unfinished = self.rows(tables.session, tables.session.c.state != "COMPLETED")
        found += [f"session {row['name']}: {row['state']}" for row in unfinished]
        open_leases = self.rows(tables.lease, tables.lease.c.state != "CLOSED")
        found += [f"lease {row['lease_id']} on {row['slot_key']}: {row['state']}" for row in open_leases]
        out_of_service = self.rows(tables.slot, tables.slot.c.quarantined != "")
        found += [f"slot {row['slot_key']}: {row['quarantined']}" for row in out_of_service]
        return found

    def check_outcome(self) -> None:
        """The same as without faults: particles exact, and streaming jobs have taken in all of them."""
        exposure = tables.exposure.c
        for name, session_id in self.sessions.items():
            rows = self.rows(tables.exposure, exposure.session_id == session_id, exposure.state == "DONE")
            movies = {row["relative_path"]: self.disk.look(name, row["relative_path"]) for row in rows}
            for row in rows:
                movie = movies[row["relative_path"]]
                assert movie is None or row["block_particles"] == movie.particles, f"E3: {row['relative_path']}"
            live = {row["exposure_id"]: row["block_particles"] for row in rows if row["block_particles"]}
            for job in self.rows(tables.job, tables.job.c.session_id == session_id, tables.job.c.state == "DONE"):
                if jobs.streams(job):
                    assert self.disk.finished[job["job_id"]] == live, "C: a streaming job does not have exactly the particles"

    # --------------------------------------------------------------------------------------------------------- people
    def person(self, what: str, body: Callable[[Transaction], Any]) -> Any:
        """Let a person ask for something; it may be refused, or nobody may answer."""
        try:
            value = self.scheduler.transact(body)
        except FrazilError as error:
            if error.kind not in (ErrorKind.CONFLICT, ErrorKind.INVALID, ErrorKind.NOT_FOUND, ErrorKind.UNAVAILABLE):
                raise
            self.engine.note("a person", what, "refused", error.reason)
            return None
        self.engine.note("a person", what)
        return value

    def cut(self, node_id: str) -> None:
        """Break a machine's link."""
        machine = self.machines[node_id]
        if machine.linked:
            machine.linked = False
            self.agents[node_id].cut()
            for process in machine.processes.values():
                self.runners[process.lease_id].link_is_cut()

    def create(self, name: str, *, until: str = "", workers_wanted: int = 1, **compute: Any) -> str:
        """Create a session over its folder of movies."""
        wanted = session_pb2.Session(name=name)
        wanted.parameters.until = until
        wanted.parameters.movie_folder = str(self.disk.session_folder(name))
        wanted.parameters.pixel_size_angstrom = 1.0
        wanted.parameters.particle_diameter_angstrom = 140
        wanted.compute.CopyFrom(session_pb2.ComputeResources(preprocessing_workers=workers_wanted, **compute))
        validation.fill_defaults(wanted.parameters, wanted.compute)
        row = self.scheduler.transact(lambda tx: sessions.create(tx, wanted, Path("/data") / name))
        self.sessions[name] = row["session_id"]
        return str(row["session_id"])

    def fill_disk(self, name: str) -> None:
        """Let the disk of a session's results fill up; the scheduler sees it."""
        self.disk.full.add(name)
        self._tell_disk(name, "Disk nearly full.")

    def empty_disk(self, name: str) -> None:
        """Let the disk of a session's results have room again; the scheduler sees it."""
        self.disk.full.discard(name)
        self._tell_disk(name, "")

    def _tell_disk(self, name: str, problem: str) -> None:
        self.person("disk", lambda tx: sessions.set_disk_problem(tx, self.sessions[name], problem))

    def holder(self, path: Path, likely_pid: int = 0) -> int | None:
        """Return the simulated process that holds a lock file, as `frazil.agent.locks.holder_of` does for real ones."""
        machine = next(machine for machine in self.machines.values() if machine.folder == path.parent)
        return machine.holder(path)


@contextmanager
def quiet(holder: Callable[[Path, int], int | None]) -> Iterator[None]:
    """Let the agent's code see simulated processes, and nothing be logged."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with ExitStack() as stack:
        for module in ("children", "prove_free"):
            stack.enter_context(mock.patch(f"frazil.agent.{module}.holder_of", holder))
        try:
            yield
        finally:
            structlog.reset_defaults()
