"""What can go wrong, and how it is put right again after a while."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from simulation.facility import Facility
from simulation.machine import Machine, Process

OWN_XIDS, GRAVE_XIDS = (13, 31), (48, 79)


class Faults:
    """Injects faults at random, until it is told to end."""

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._engine = facility.engine
        self._on = True
        self._kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (4, self._scheduler_dies),
            (1, self._scheduler_freezes),
            (1, self._ledger_is_full),
            (3, self._agent_dies),
            (1, self._agent_freezes),
            (3, self._link_breaks),
            (1, self._power_fails),
            (4, self._worker_dies),
            (3, self._worker_freezes),
            (2, self._worker_hangs),
            (2, self._gpu_reports_an_error),
            (1, self._gpu_is_used_by_others),
            (1, self._ingest_dies),
            (1, self._session_disk_is_full),
            (1, self._movies_are_unmounted),
            (1, self._checkpoint_is_damaged),
            (1, self._wall_clock_jumps),
        )

    def plan(self, start: float, end: float, count: int) -> None:
        """Let so many faults happen between two times."""
        for _ in range(count):
            self._engine.after(self._engine.between(start, end) - self._engine.now, self._happen)

    def end(self) -> None:
        """Put everything right; nothing goes wrong from now on."""
        self._on = False
        facility = self._facility
        self._ledger_has_room()
        facility.disk.full.clear()
        for name in facility.sessions:
            self._mount(name)
        facility.chances.request_lost = facility.chances.reply_lost = facility.chances.late = 0.0
        facility.scheduler.give_up_crash()
        facility.scheduler.start()
        facility.ingest.start()
        for machine in facility.machines.values():
            self._repair(machine)
            for process in list(machine.processes.values()):
                machine.thaw(process)
        for agent in facility.agents.values():
            if agent.frozen:
                agent.thaw()
            agent.start()

    def _repair(self, machine: Machine) -> None:
        machine.linked = True
        if not machine.powered:
            machine.power_on()
        for gpu in machine.gpus.values():
            gpu.broken, gpu.foreign_mib = False, 0

    def _happen(self) -> None:
        if self._on:
            (fault,) = self._engine.random.choices(
                [kind for _, kind in self._kinds], weights=[weight for weight, _ in self._kinds]
            )
            self._engine.note("fault", fault.__name__)
            fault()

    def _later(self, low: float, high: float, act: Callable[[], object]) -> None:
        """Put something right; often soon, sometimes late."""
        seconds = self._engine.between(low, high if self._engine.chance(0.3) else low + (high - low) / 10)
        self._engine.after(seconds, lambda: act() if self._on else None)

    def _machine(self) -> Machine:
        return self._engine.random.choice(list(self._facility.machines.values()))

    def _process(self) -> Process | None:
        processes = sorted(self._facility.workers.values(), key=lambda process: process.epoch)
        return self._engine.random.choice(processes) if processes else None

    # ---------------------------------------------------------------------------------------------------- the scheduler
    def _scheduler_dies(self) -> None:
        scheduler = self._facility.scheduler
        if scheduler.store is None:
            return
        how = self._engine.random.choice(("now", "before", "torn", "after", "after"))
        scheduler.crash(how, self._engine.random.randrange(4))
        scheduler.on_death = self._bring_scheduler_back
        if how == "now":
            return
        self._engine.after(3600.0, scheduler.give_up_crash)

    def _bring_scheduler_back(self) -> None:
        def start() -> None:
            if self._facility.scheduler.store is None:
                if self._engine.chance(0.3):
                    self._facility.scheduler.host_reboots()
                self._facility.scheduler.start()

        self._later(1.0, 900.0, start)

    def _scheduler_freezes(self) -> None:
        self._facility.scheduler.freeze(self._engine.between(5.0, 300.0))

    def _ledger_is_full(self) -> None:
        self._pragma("max_page_count=1")
        self._later(10.0, 600.0, self._ledger_has_room)

    def _ledger_has_room(self) -> None:
        self._pragma("max_page_count=1073741823")

    def _pragma(self, pragma: str) -> None:
        store = self._facility.scheduler.store
        connection: Connection | None = store._connection if store is not None else None
        if connection is not None:
            connection.connection.driver_connection.execute(f"PRAGMA {pragma}")  # type: ignore[union-attr]

    # ----------------------------------------------------------------------------------------------------------- nodes
    def _agent_dies(self) -> None:
        agent = self._facility.agents[self._machine().node_id]
        agent.crash()
        self._later(0.5, 600.0, agent.start)

    def _agent_freezes(self) -> None:
        agent = self._facility.agents[self._machine().node_id]
        if agent.running:
            agent.freeze()
            self._later(10.0, 300.0, agent.thaw)

    def _link_breaks(self) -> None:
        machine = self._machine()
        self._facility.cut(machine.node_id)

        def mend() -> None:
            machine.linked = True

        self._later(0.5, 7200.0, mend)

    def _power_fails(self) -> None:
        machine = self._machine()
        if not machine.powered:
            return
        machine.powered = False
        self._facility.agents[machine.node_id].crash()
        machine.power_off()

        def boot() -> None:
            if not machine.powered:
                machine.power_on()
                self._facility.agents[machine.node_id].start()

        self._later(30.0, 7200.0, boot)

    # --------------------------------------------------------------------------------------------------------- workers
    def _worker_dies(self) -> None:
        process = self._process()
        if process is not None and not process.unkillable:
            code = self._engine.random.choice((-9, -11, 1, 5))
            if code == -9 and self._engine.chance(0.5):
                process.machine.oom_kills += 1
            process.machine.exit(process, code)

    def _worker_freezes(self) -> None:
        process = self._process()
        if process is not None:
            process.machine.freeze(process, unkillable=self._engine.chance(0.3))
            self._later(10.0, 3000.0, lambda: process.machine.thaw(process))

    def _worker_hangs(self) -> None:
        """Nobody mends this: the scheduler has to notice."""
        process = self._process()
        if process is not None:
            process.hung = True

    def _gpu_reports_an_error(self) -> None:
        machine = self._machine()
        uuid = self._engine.random.choice(list(machine.gpus))
        grave = self._engine.chance(0.5)
        machine.xids.append((uuid, self._engine.random.choice(GRAVE_XIDS if grave else OWN_XIDS)))
        machine.gpus[uuid].broken |= grave
        for process in list(machine.processes.values()):
            if process.slot.gpu_uuid == uuid and self._engine.chance(0.5):
                machine.exit(process, -6)
        self._facility.agents[machine.node_id].poke()

        def mend() -> None:
            machine.gpus[uuid].broken = False

        self._later(600.0, 7200.0, mend)

    def _gpu_is_used_by_others(self) -> None:
        gpu = self._engine.random.choice(list(self._machine().gpus.values()))
        gpu.foreign_mib = 20_000

        def end() -> None:
            gpu.foreign_mib = 0

        self._later(60.0, 3600.0, end)

    # ----------------------------------------------------------------------------------------------------- all the rest
    def _ingest_dies(self) -> None:
        self._facility.ingest.crash()
        self._later(1.0, 600.0, self._facility.ingest.start)

    def _session_disk_is_full(self) -> None:
        name = self._engine.random.choice(list(self._facility.sessions))
        self._facility.fill_disk(name)
        self._later(60.0, 3600.0, lambda: self._facility.empty_disk(name))

    def _movies_are_unmounted(self) -> None:
        facility, name = self._facility, self._engine.random.choice(list(self._facility.sessions))
        facility.disk.unmount(name, leaves_folder=self._engine.chance(0.5))
        facility.ingest.news(facility.sessions[name])
        self._later(5.0, 3600.0, lambda: self._mount(name))

    def _mount(self, name: str) -> None:
        self._facility.disk.mount(name)
        self._facility.ingest.news(self._facility.sessions[name])

    def _checkpoint_is_damaged(self) -> None:
        known = sorted(self._facility.disk.checkpoints)
        if known:
            del self._facility.disk.checkpoints[known[-1]]

    def _wall_clock_jumps(self) -> None:
        self._facility.scheduler.wall_offset += self._engine.random.choice((-30, -1, 1, 9000)) * 3600.0
