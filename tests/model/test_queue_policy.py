"""The queue policy over thousands of random arrivals and releases: overlapping lanes, slots of mixed size.

`placement.schedule` is judged by definitions written here: nobody overtakes on a slot that an earlier job could have used
(F1), no slot idles while somebody could use it (F2). Strict first-in-first-out per lane, the obvious alternative, fails F2.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from frazil_scheduler.placement import Holder, Kind, Slot, WaitingJob, schedule

STEPS = 1500
Policy = Callable[[list[WaitingJob], dict[str, list[Slot]]], dict[str, str]]  # job id to slot key


def smallest_fit(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    return {grant.job.job_id: grant.slot.slot_key for grant in schedule(waiting, lanes).grants}


def strict_per_lane(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    granted: dict[str, str] = {}
    stuck: set[str] = set()
    for job in sorted(waiting, key=lambda job: job.sequence):
        free = [s for s in lanes[job.lane] if s.holder is None and s.slot_key not in granted.values()]
        fitting = [s for s in free if s.memory_mib >= job.gpu_memory_min_mib]
        if job.lane in stuck or not fitting:
            stuck.add(job.lane)
        else:
            granted[job.job_id] = min(fitting, key=lambda s: (s.memory_mib, s.slot_key)).slot_key
    return granted


class Cluster:
    """Twelve slots, four overlapping lanes, jobs that come and go."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        keys = [f"GPU-{number:02d}#0" for number in range(12)]
        self.slots = {key: new_slot(key, self.dice.choice([8, 11, 24, 80])) for key in keys}
        self.lanes = {name: self.dice.sample(keys, self.dice.randint(2, 8)) for name in "ABCD"}
        self.waiting: list[WaitingJob] = []
        self.sequence = 0

    def change(self) -> None:
        held = [key for key, slot in self.slots.items() if slot.holder is not None]
        if self.dice.random() < 0.5 and len(self.waiting) < 60:
            self.arrive()
        elif held:
            key = self.dice.choice(held)
            self.slots[key] = replace(self.slots[key], holder=None)

    def arrive(self) -> None:
        lane, memory = self.dice.choice("ABCD"), self.dice.choice([4, 8, 11, 20])
        if any(self.slots[key].memory_mib >= memory for key in self.lanes[lane]):
            self.sequence += 1
            self.waiting.append(new_job(f"job-{self.sequence}", self.sequence, lane, memory))

    def place(self, policy: Policy) -> tuple[int, int]:
        """Grant, and count overtakings and idle slots that somebody could use."""
        lanes = {name: [self.slots[key] for key in keys] for name, keys in self.lanes.items()}
        granted = policy(self.waiting, lanes)
        by_id = {job.job_id: job for job in self.waiting}
        assert len(set(granted.values())) == len(granted)
        assert all(self.slots[key].holder is None for key in granted.values())
        assert all(self.could_use(by_id[job_id], key) for job_id, key in granted.items())
        left = [job for job in self.waiting if job.job_id not in granted]
        overtaken = sum(
            earlier.sequence < by_id[job_id].sequence and self.could_use(earlier, key)
            for job_id, key in granted.items()
            for earlier in left
        )
        for job_id, key in granted.items():
            self.slots[key] = replace(self.slots[key], holder=Holder(job_id=job_id, indefinite=True))
        free = [key for key, slot in self.slots.items() if slot.holder is None]
        idle = sum(any(self.could_use(job, key) for job in left) for key in free)
        self.waiting = left
        return overtaken, idle

    def could_use(self, job: WaitingJob, key: str) -> bool:
        return key in self.lanes[job.lane] and self.slots[key].memory_mib >= job.gpu_memory_min_mib


def new_slot(key: str, memory: int) -> Slot:
    return Slot(slot_key=key, node_id="node", kind=Kind.GPU, memory_mib=memory, programs=frozenset({"program"}))


def new_job(job_id: str, sequence: int, lane: str, memory: int) -> WaitingJob:
    return WaitingJob(
        job_id=job_id,
        sequence=sequence,
        lane=lane,
        program="program",
        gpu_memory_min_mib=memory,
        cpu_memory_min_mib=memory,
        indefinite=True,
    )


def run(policy: Policy) -> tuple[int, int]:
    overtaken = idle = 0
    for seed in range(4):
        cluster = Cluster(seed)
        for _ in range(STEPS):
            cluster.change()
            more_overtaken, more_idle = cluster.place(policy)
            overtaken, idle = overtaken + more_overtaken, idle + more_idle
    return overtaken, idle


def test_smallest_fit_in_sequence_neither_overtakes_nor_idles() -> None:
    assert run(smallest_fit) == (0, 0)


def test_strict_order_per_lane_leaves_slots_idle() -> None:
    _, idle = run(strict_per_lane)
    assert idle > 0
