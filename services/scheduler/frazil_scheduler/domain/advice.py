"""What the GPUs at hand allow a session: what will run together, what will wait and why, and what to do. Changes nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import RowMapping

from frazil import jobs as declarations
from frazil.api.session.v1 import session_pb2
from frazil_scheduler.domain import compute, jobs, limits, queue
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.placement import Grant, Reason, Slot, WaitingJob, fits, free, schedule

Lanes = Mapping[str, Sequence[Slot]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a session would ask for, and what it would get if nobody else asked."""

    resources: session_pb2.ComputeResources
    asked: Sequence[tuple[str, WaitingJob]]  # with job types, in queue order
    grants: Mapping[str, Grant]  # by job id
    blocked: Mapping[str, Reason]
    free: frozenset[str]  # slots of the session's lanes before it takes any

    @property
    def left(self) -> int:
        """Count the free slots that it would leave."""
        return len(self.free - {grant.slot.slot_key for grant in self.grants.values()})

    def waiting(self, *reasons: Reason) -> Counter[str]:
        """Count the jobs of each type that would wait, for one of these reasons if any is given."""
        return Counter(
            kind
            for kind, job in self.asked
            if job.job_id in self.blocked and (not reasons or self.blocked[job.job_id] in reasons)
        )


def slots_for(tx: Transaction, lanes: queue.Lanes, row: RowMapping | None) -> Lanes:
    """Return every lane's slots for a session, or for one about to be created; those that it holds itself count as free."""
    return _without_own(tx, queue.slots_by_lane(tx, lanes), row)


def advise(
    slots: Lanes,
    lanes: queue.Lanes,
    row: RowMapping | None,
    parameters: session_pb2.SessionParameters,
    resources: session_pb2.ComputeResources,
) -> session_pb2.ComputeAdvice:
    """Return what the jobs of a session, or of one about to be created (None), would get of the slots of `slots_for`."""
    streaming = _streaming(row, parameters, resources)
    plan = _plan(slots, row, parameters, resources, streaming)
    mine = _in_service(slots, plan)
    advice = session_pb2.ComputeAdvice(slots=len(mine), free_slots=len(plan.free))
    clusters = _clusters(lanes)
    for kind, job in plan.asked:
        advice.jobs.append(_planned(kind, job, plan, slots, clusters))
    better = _better(slots, row, parameters, plan, streaming)
    advice.sentences.extend(_sentences(slots, plan, better, len(mine), clusters))
    if better is not None:
        advice.suggestion.CopyFrom(better.resources)
    return advice


def refuse_hopeless(
    tx: Transaction,
    lanes: queue.Lanes,
    parameters: session_pb2.SessionParameters,
    resources: session_pb2.ComputeResources,
    streaming: Sequence[str],
) -> None:
    """Raise FrazilError NO_SLOT_FITS when a job that a session would queue fits no slot of its lane at all."""
    by_lane = queue.slots_by_lane(tx, lanes)
    for _, job in _asked("", parameters, resources, streaming):
        queue.refuse_hopeless(lanes, by_lane, job)


def of_start(tx: Transaction, lanes: queue.Lanes, row: RowMapping) -> str:
    """Return what to tell a person who starts a session; empty when everything runs together.

    Only this session's jobs are planned, and no better plan is looked for: the writer is held. Raises FrazilError NO_SLOT_FITS.
    """
    parameters, resources = session_pb2.SessionParameters.FromString(row["parameters"]), compute.of(row)
    by_lane = queue.slots_by_lane(tx, lanes)
    for _, job in _asked("", parameters, resources, compute.streaming(row)):
        queue.refuse_hopeless(lanes, by_lane, job)
    slots, clusters = _without_own(tx, by_lane, row), _clusters(lanes)
    plan = _plan(slots, row, parameters, resources, _streaming(row, parameters, resources))
    lasting = (Reason.LANE_HELD, Reason.LANE_TOO_SMALL)
    waits = any(plan.blocked.get(job.job_id) in lasting and job.lane not in clusters for _, job in plan.asked)
    return next(iter(_sentences(slots, plan, None, len(_in_service(slots, plan)), clusters))) if waits else ""


def _clusters(lanes: queue.Lanes) -> frozenset[str]:
    return frozenset(name for name, lane in lanes.items() if lane.policy is not None)


def _without_own(tx: Transaction, by_lane: Lanes, row: RowMapping | None) -> Lanes:
    """Return every lane's slots; those that the session holds itself count as free."""
    own = {job["job_id"] for job in jobs.of_session(tx, row["session_id"])} if row is not None else set()
    return {
        name: [replace(s, holder=None) if s.holder is not None and s.holder.job_id in own else s for s in slots]
        for name, slots in by_lane.items()
    }


def _streaming(
    row: RowMapping | None,
    parameters: session_pb2.SessionParameters,
    resources: session_pb2.ComputeResources,
) -> list[str]:
    at_start = jobs.streaming_at_start(parameters, resources)
    return sorted({*compute.streaming(row), *at_start}) if row is not None else at_start


def _asked(
    session_id: str,
    parameters: session_pb2.SessionParameters,
    resources: session_pb2.ComputeResources,
    streaming: Sequence[str],
) -> list[tuple[str, WaitingJob]]:
    workload = jobs.workload_of(parameters)
    kinds = [jobs.PREPROCESS] * max(1, resources.preprocessing_workers) + list(streaming)
    asked = []
    for sequence, kind in enumerate(kinds):
        declaration = declarations.load(kind)
        job = WaitingJob(
            job_id=f"planned-{sequence}",
            sequence=sequence,
            lane=jobs.lane_of(declaration, resources),
            program=declaration.program,
            gpu_memory_min_mib=declaration.gpu_memory_min_mib(workload),
            cpu_memory_min_mib=declaration.cpu_memory_min_mib,
            indefinite=True,
            session_id=session_id,
            gpus=frozenset(jobs.gpus_of(declaration, resources)),
        )
        asked.append((kind, job))
    return asked


def _plan(
    slots: Lanes,
    row: RowMapping | None,
    parameters: session_pb2.SessionParameters,
    resources: session_pb2.ComputeResources,
    streaming: Sequence[str],
) -> _Plan:
    asked = _asked(row["session_id"] if row is not None else "", parameters, resources, streaming)
    placement = schedule([job for _, job in asked], slots)
    lanes = {job.lane for _, job in asked} | {resources.auxiliary_lane or "default"}
    available = frozenset(slot.slot_key for lane in lanes for slot in slots.get(lane, ()) if free(slot))
    return _Plan(resources, asked, {grant.job.job_id: grant for grant in placement.grants}, placement.blocked, available)


def _in_service(slots: Lanes, plan: _Plan) -> set[str]:
    lanes = {job.lane for _, job in plan.asked} | {plan.resources.auxiliary_lane or "default"}
    found = (slot for lane in lanes for slot in slots.get(lane, ()))
    return {slot.slot_key for slot in found if slot.ready and not slot.quarantined and not slot.drained}


def _planned(
    kind: str, job: WaitingJob, plan: _Plan, slots: Lanes, clusters: Container[str]
) -> session_pb2.ComputeAdvice.PlannedJob:
    planned = session_pb2.ComputeAdvice.PlannedJob(
        job_type=kind, lane=job.lane, gpu_memory_min_mib=job.gpu_memory_min_mib, indefinite=job.indefinite
    )
    grant = plan.grants.get(job.job_id)
    if grant is not None:
        planned.slot_key = grant.slot.slot_key
        return planned
    reason = plan.blocked[job.job_id]
    planned.reason = reason.value
    if job.lane in clusters:
        planned.reason, planned.sentence = "CLUSTER_PENDING", _of_cluster(job.lane)
    elif any(free(slot) and fits(job, slot) for slot in slots.get(job.lane, ())):
        planned.sentence = "The session's own jobs before it take every slot that it could use."
    else:
        planned.sentence = queue.sentence(job, slots.get(job.lane, ()), reason)
    return planned


def _better(
    slots: Lanes,
    row: RowMapping | None,
    parameters: session_pb2.SessionParameters,
    plan: _Plan,
    streaming: Sequence[str],
) -> _Plan | None:
    """Return a plan that suits the slots better, or None.

    The most workers with which everything runs together, a slot left for auxiliary jobs and for each streaming job that is
    not queued yet; on fewer slots one worker; and where even that makes a job wait, one worker and alternation.
    """
    if not plan.free or plan.waiting(Reason.LANE_TOO_SMALL, Reason.NO_NODE, Reason.LANE_QUARANTINED, Reason.GPUS_BUSY):
        return None
    reserve = 1 + len(set(jobs.streaming_of(parameters)) - set(streaming))

    def of(workers: int) -> _Plan:
        return _plan(slots, row, parameters, _with(plan.resources, workers), streaming)

    def too_many(workers: int) -> bool:
        candidate = of(workers)
        return bool(candidate.waiting()) or (workers > 1 and candidate.left < reserve)

    most = bisect_left(range(1, len(plan.free) + 1), x=True, key=too_many)
    best = of(max(1, most))
    if not most:
        best.resources.alternation.enabled = True
    same = (_workers(best), best.resources.alternation.enabled) == (_workers(plan), plan.resources.alternation.enabled)
    runs_well = not plan.waiting() and plan.left <= reserve
    return None if same or runs_well else best


def _with(resources: session_pb2.ComputeResources, workers: int) -> session_pb2.ComputeResources:
    changed = session_pb2.ComputeResources()
    changed.CopyFrom(resources)
    changed.preprocessing_workers = workers
    return changed


def _workers(plan: _Plan) -> int:
    return max(1, plan.resources.preprocessing_workers)


def _sentences(slots: Lanes, plan: _Plan, better: _Plan | None, count: int, clusters: Container[str]) -> Iterable[str]:
    """Say the most important first: what never runs, what waits, what to do, what runs, what is left."""
    yield from _impossible(slots, plan, clusters)
    waiting = plan.waiting(Reason.LANE_HELD, Reason.LANE_BUSY, Reason.GPUS_BUSY)
    if waiting:
        yield from _waits(plan, waiting, count)
        if better is not None and better.resources.alternation.enabled:
            yield "Let the jobs take turns (alternation), or hand slots over by hand when it suits you (session switch)."
        elif better is not None:
            yield f"With {jobs.in_words({jobs.PREPROCESS: _workers(better)})} everything runs together."
    together = Counter(kind for kind, job in plan.asked if job.job_id in plan.grants)
    if together:
        verb = "run together" if together.total() > 1 else "runs"
        yield _sentence(f"{jobs.in_words(together)} {verb} on {_slots_in_words(together.total())}.")
    if not plan.blocked:
        yield from _left(plan, better)


def _impossible(slots: Lanes, plan: _Plan, clusters: Container[str]) -> Iterable[str]:
    for reason in (Reason.LANE_TOO_SMALL, Reason.NO_NODE, Reason.LANE_QUARANTINED):
        for kind, count in plan.waiting(reason).items():
            job = next(job for other, job in plan.asked if other == kind and plan.blocked.get(job.job_id) is reason)
            why = queue.sentence(job, slots.get(job.lane, ()), reason)
            why = _of_cluster(job.lane) if job.lane in clusters else why
            yield _sentence(f"{jobs.in_words({kind: count})} {_wait(count)}: {why[0].lower()}{why[1:]}")


def _of_cluster(lane: str) -> str:
    return f"The cluster of lane {lane!r} is asked for slots once the jobs are queued; when they come is for it to say."


def _waits(plan: _Plan, waiting: Counter[str], count: int) -> Iterable[str]:
    who = f"{jobs.in_words(waiting)} {_wait(waiting.total())}"
    elsewhere = count - len(plan.free)
    if plan.resources.alternation.enabled and plan.grants:
        minutes = plan.resources.alternation.update_interval_minutes or limits.UPDATE_INTERVAL_MINUTES
        yield (
            f"On {_slots_in_words(len(plan.grants))} the jobs take turns by themselves: {who} at most about {minutes} min "
            "while there is something new, less while preprocessing is idle."
        )
    elif elsewhere:
        others = f"other jobs hold {elsewhere}" if elsewhere > 1 else "another job holds 1"
        yield _sentence(f"{who}: of {_slots_in_words(count)} {others}, until a session is paused or a job ends.")
    else:
        held = f"all {count} slots" if count > 1 else "the only slot"
        yield _sentence(f"{who} for as long as the session runs: its other jobs hold {held}.")


def _left(plan: _Plan, better: _Plan | None) -> Iterable[str]:
    if plan.left == 0:
        yield "No slot is left for auxiliary jobs such as ab-initio: they wait until another job of the session stops."
        return
    verb = "stays" if plan.left == 1 else "stay"
    yield f"{_slots_in_words(plan.left)} {verb} free, for auxiliary jobs such as ab-initio and for other sessions."
    more = _workers(better) - _workers(plan) if better is not None else 0
    if more > 0:
        yield f"{more} more preprocessing {'worker' if more == 1 else 'workers'} could run."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _wait(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _slots_in_words(count: int) -> str:
    return f"{count} slots" if count != 1 else "1 slot"
