"""The queue policy over thousands of random arrivals and releases: overlapping lanes, slots of mixed size, priorities, jobs
bound to GPUs, slots that are drained or handed over.

`placement.schedule` is judged by definitions written here: nobody overtakes on a slot that a job before it could have used
(F1), no slot idles while somebody could use it (F2). Each weakened policy fails one of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from frazil_scheduler.placement import Holder, Kind, Slot, WaitingJob, schedule

STEPS = 1500
Policy = Callable[[list[WaitingJob], dict[str, list[Slot]]], dict[str, str]]  # job id to slot key


def smallest_fit(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    return {grant.job.job_id: grant.slot.slot_key for grant in schedule(waiting, lanes).grants}


def by_age_alone(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    return smallest_fit([replace(job, priority=0) for job in waiting], lanes)


def without_hand_over(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    forgotten = {name: [replace(slot, handoff_session_id="") for slot in slots] for name, slots in lanes.items()}
    return smallest_fit(waiting, forgotten)


def without_drain(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    return smallest_fit(waiting, {name: [replace(slot, drained=False) for slot in slots] for name, slots in lanes.items()})


def without_binding(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    return smallest_fit([replace(job, gpus=frozenset()) for job in waiting], lanes)


def strict_per_lane(waiting: list[WaitingJob], lanes: dict[str, list[Slot]]) -> dict[str, str]:
    granted: dict[str, str] = {}
    stuck: set[str] = set()
    for job in sorted(waiting, key=place):
        fitting = [s for s in lanes[job.lane] if could_use(job, s) and s.slot_key not in granted.values()]
        if job.lane in stuck or not fitting:
            stuck.add(job.lane)
        else:
            granted[job.job_id] = min(fitting, key=lambda s: (s.memory_mib, s.slot_key)).slot_key
    return granted


def place(job: WaitingJob) -> tuple[int, int]:
    return (-job.priority, job.sequence)


def could_use(job: WaitingJob, slot: Slot) -> bool:
    """Tell whether a slot of the job's lane could be granted to it now."""
    bound = not job.gpus or bool(job.gpus & {slot.slot_key, slot.slot_key.split("#")[0]})
    handed = slot.handoff_session_id in ("", job.session_id)
    free = slot.holder is None and not slot.drained
    return free and bound and handed and slot.memory_mib >= job.gpu_memory_min_mib


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
        chance = self.dice.random()
        if chance < 0.5 and len(self.waiting) < 60:
            self.arrive()
        elif chance < 0.6:
            key = self.dice.choice(list(self.slots))
            self.slots[key] = replace(self.slots[key], drained=not self.slots[key].drained)
        elif held:
            key = self.dice.choice(held)
            handed_to = self.dice.choice(["", "", "s", "t"])
            self.slots[key] = replace(self.slots[key], holder=None, handoff_session_id=handed_to)

    def arrive(self) -> None:
        lane, memory = self.dice.choice("ABCD"), self.dice.choice([4, 8, 11, 20])
        if any(self.slots[key].memory_mib >= memory for key in self.lanes[lane]):
            self.sequence += 1
            session, priority = self.dice.choice("stu"), self.dice.choice([0, 0, 0, 7])
            gpus = frozenset({self.dice.choice(self.lanes[lane]).split("#")[0]} if self.dice.random() < 0.2 else ())
            job = new_job(f"job-{self.sequence}", self.sequence, lane, memory)
            self.waiting.append(replace(job, session_id=session, priority=priority, gpus=gpus))

    def place(self, policy: Policy) -> tuple[int, int, int]:
        """Grant, and count unlawful grants, overtakings, and idle slots that somebody could use."""
        lanes = {name: [self.slots[key] for key in keys] for name, keys in self.lanes.items()}
        granted = policy(self.waiting, lanes)
        by_id = {job.job_id: job for job in self.waiting}
        assert len(set(granted.values())) == len(granted)
        assert all(self.slots[key].holder is None for key in granted.values())
        unlawful = sum(not self.could_use(by_id[job_id], key) for job_id, key in granted.items())
        left = [job for job in self.waiting if job.job_id not in granted]
        overtaken = sum(
            place(before) < place(by_id[job_id]) and self.could_use(before, key)
            for job_id, key in granted.items()
            for before in left
        )
        for job_id, key in granted.items():
            self.slots[key] = replace(self.slots[key], holder=Holder(job_id=job_id, indefinite=True), handoff_session_id="")
        idle = sum(any(self.could_use(job, key) for job in left) for key in self.slots)
        self.waiting = left
        return unlawful, overtaken, idle

    def could_use(self, job: WaitingJob, key: str) -> bool:
        return key in self.lanes[job.lane] and could_use(job, self.slots[key])


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


def run(policy: Policy) -> Iterator[dict[str, int]]:
    """Yield what is wrong after every change."""
    for seed in range(3):
        cluster = Cluster(seed)
        for _ in range(STEPS):
            cluster.change()
            yield dict(zip(("unlawful", "overtaken", "idle"), cluster.place(policy), strict=True))


def test_smallest_fit_in_order_neither_overtakes_nor_idles() -> None:
    assert not any(any(found.values()) for found in run(smallest_fit))


@pytest.mark.parametrize(
    ("policy", "broken"),
    [
        (strict_per_lane, "idle"),
        (by_age_alone, "overtaken"),
        (without_hand_over, "unlawful"),
        (without_drain, "unlawful"),
        (without_binding, "unlawful"),
    ],
)
def test_every_weakened_policy_breaks_a_law(policy: Policy, broken: str) -> None:
    assert any(found[broken] for found in run(policy))
