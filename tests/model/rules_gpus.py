"""Random histories: GPUs that fail or that others use, workers that die of them or of memory, a wall clock that jumps."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from frazil_scheduler.domain import gpus
from frazil_scheduler.ledger import tables
from model.world import Worker, World, gpu_of

SLOTS = ("GPU-1#0", "GPU-2#0", "GPU-3#0")
XIDS = (13, 31, 48, 79, 0)
HOURS = (-30, -1, 1, 9000)


class GpuRules:
    """Rules for a machine that has a `world` and knows its live workers."""

    world: World
    some_worker: Callable[[int], Worker | None]

    def node_with(self, slot_key: str) -> str:
        return next(node_id for node_id, node in self.world.nodes.items() if slot_key in node.slots)

    @rule(slot=st.sampled_from(SLOTS), xid=st.sampled_from(XIDS))
    def a_gpu_reports_an_error(self, slot: str, xid: int) -> None:
        self.world.fault(self.node_with(slot), gpu_of(slot), xid)

    @rule(slot=st.sampled_from(SLOTS), uses=st.booleans())
    def another_program_uses_a_gpu(self, slot: str, uses: bool) -> None:
        foreign = self.world.nodes[self.node_with(slot)].foreign
        (foreign.add if uses else foreign.discard)(gpu_of(slot))

    @precondition(lambda self: self.world.workers)
    @rule(number=st.integers(0, 2), xids=st.lists(st.sampled_from(XIDS), max_size=2), memory=st.booleans())
    def a_worker_dies_of_its_gpu_or_of_memory(self, number: int, xids: list[int], memory: bool) -> None:
        worker = self.some_worker(number)
        if worker is not None:
            self.world.end(worker, -9 if memory else -6, xids=xids, out_of_memory=memory)

    @rule(slot=st.sampled_from(SLOTS), how=st.sampled_from(["drain", "clear", "quarantine"]))
    def a_person_turns_to_a_gpu(self, slot: str, how: str) -> None:
        if not self.world.rows(tables.slot, tables.slot.c.slot_key == slot):
            return
        match how:
            case "drain":
                self.world.store.transact(lambda tx: gpus.drain(tx, slot, "maintenance"))
            case "quarantine":
                self.world.store.transact(lambda tx: gpus.quarantine(tx, slot, "maintenance"))
            case "clear":
                self.world.store.transact(lambda tx: gpus.clear(tx, slot))

    @rule(hours=st.sampled_from(HOURS))
    def the_wall_clock_jumps(self, hours: int) -> None:
        self.world.wall_offset += hours * 3600.0
