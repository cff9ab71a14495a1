"""Jobs: making a session's, and bringing them from state to state; every one is in exactly one state and none is ever lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, func, insert, select, update

from frazil import jobs as declarations
from frazil.api.session.v1 import session_pb2
from frazil.model.camera import read_camera
from frazil_scheduler.domain import limits
from frazil_scheduler.domain.last_words import last_words
from frazil_scheduler.lease import BUSY_EXTERNAL, Cause, JobReleased
from frazil_scheduler.ledger import statements, tables
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.stall import believed_again

_job = tables.job.c
_session = tables.session.c

STATES = ("WAITING", "STARTING", "RUNNING", "STOPPING", "PAUSED", "DONE", "FAILED", "CANCELLED")
TERMINAL = ("DONE", "FAILED", "CANCELLED")
PREPROCESS = "preprocess"
AFRESH = {"failures_in_row": 0, "stalls": 0, "not_before_mono": 0.0}  # a person has said: try again

_ELSEWHERE = {Cause.NODE_LOST: "Its node is silent.", Cause.GPU_FAILED: "Its GPU has failed; it goes on elsewhere."}


def streaming_types() -> tuple[str, ...]:
    """Return the job types that stream: they hold a slot of the reconstruction lane until they are stopped."""
    declared = {name: declarations.load(name) for name in declarations.names()}
    role, hold = declarations.LaneRole.RECONSTRUCTION, declarations.Hold.UNTIL_PAUSED
    return tuple(name for name, job in declared.items() if (job.lane_role, job.hold) == (role, hold))


def streaming_of(parameters: session_pb2.SessionParameters) -> list[str]:
    """Return the streaming job types that a session may have; `until` names its last stage."""
    if parameters.until == "preprocess":
        return []
    all_of_them = parameters.until != "class2d"
    return [name for name in streaming_types() if all_of_them or declarations.load(name).starts_with_session]


def streaming_at_start(parameters: session_pb2.SessionParameters, compute: session_pb2.ComputeResources) -> list[str]:
    """Return the streaming job types that are queued with a session."""
    if compute.streaming_start == session_pb2.ComputeResources.STREAMING_START_ON_REQUEST:
        return []
    declared = {name: declarations.load(name) for name in streaming_of(parameters)}
    has_volume = bool(parameters.initial_volume_path)
    return [name for name, job in declared.items() if job.starts_with_session or (job.starts_from_volume and has_volume)]


def streams(row: RowMapping) -> bool:
    """Tell whether a job is a streaming one."""
    return bool(row["indefinite"]) and row["job_type"] != PREPROCESS


def title(job_type: str) -> str:
    """Return a job type's name for people."""
    return declarations.load(job_type).title


def in_words(counts: Mapping[str, int]) -> str:
    """Return so many jobs of each type in words, e.g. "2 preprocessing workers and streaming 2D classification"."""
    words = []
    for job_type, count in counts.items():
        name = title(job_type)
        name = name[0].lower() + name[1:]
        if job_type == PREPROCESS:
            words.append(f"{count} {name}s" if count != 1 else f"1 {name}")
        elif count:
            words.append(name if count == 1 else f"{count} × {name}")
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def lane_of(declaration: declarations.JobType, compute: session_pb2.ComputeResources) -> str:
    """Return the lane that a session gives to a job type."""
    lanes = {
        declarations.LaneRole.PREPROCESSING: compute.preprocessing_lane,
        declarations.LaneRole.RECONSTRUCTION: compute.reconstruction_lane,
        declarations.LaneRole.AUXILIARY: compute.auxiliary_lane,
    }
    return lanes[declaration.lane_role] or "default"


def gpus_of(declaration: declarations.JobType, compute: session_pb2.ComputeResources) -> Sequence[str]:
    """Return the GPUs and slots to which a session binds a job type; empty means its whole lane."""
    return {
        declarations.LaneRole.PREPROCESSING: compute.preprocessing_gpus,
        declarations.LaneRole.RECONSTRUCTION: compute.reconstruction_gpus,
        declarations.LaneRole.AUXILIARY: compute.auxiliary_gpus,
    }[declaration.lane_role]


def workload_of(parameters: session_pb2.SessionParameters) -> declarations.Workload:
    """Return what the memory of a session's jobs depends on."""
    return declarations.Workload(
        camera=read_camera(parameters.camera), box_px=parameters.output_box_px or parameters.box_size_px
    )


def add(
    tx: Transaction,
    session: RowMapping,
    job_type: str,
    *,
    lane: str = "",
    gpus: Sequence[str] = (),
    priority: int | None = None,
    parameters: Mapping[str, str] | None = None,
) -> str:
    """Put a new job of a session at the end of the queue and return its identity; what is not given is the session's."""
    compute = session_pb2.ComputeResources.FromString(session["compute"])
    declaration = declarations.load(job_type)
    sequence: int = tx.scalar(select(tables.meta.c.job_sequence)) + 1
    tx.run(update(tables.meta).values(job_sequence=sequence))
    number = 1 + tx.scalar(select(func.count()).select_from(tables.job).where(_job.session_id == session["session_id"]))
    workload = workload_of(session_pb2.SessionParameters.FromString(session["parameters"]))
    preprocessing = declaration.lane_role is declarations.LaneRole.PREPROCESSING
    row = {
        "job_id": f"{session['session_id']}-{job_type}-{number}",
        "sequence": sequence,
        "session_id": session["session_id"],
        "job_type": job_type,
        "lane": lane or lane_of(declaration, compute),
        "program": declaration.program,
        "gpu_memory_min_mib": declaration.gpu_memory_min_mib(workload),
        "cpu_memory_min_mib": declaration.cpu_memory_min_mib,
        "indefinite": declaration.hold is declarations.Hold.UNTIL_PAUSED,
        "priority": compute.priority if priority is None else priority,
        "gpus": "\n".join(gpus or gpus_of(declaration, compute)),
        "parameters": json.dumps(dict(parameters), sort_keys=True) if parameters else "",
        "drain_seconds": limits.DRAIN_PREPROCESSING_SECONDS if preprocessing else limits.DRAIN_RECONSTRUCTION_SECONDS,
        "state": "WAITING",
        "state_ns": tx.wall_ns,
        "state_mono": tx.mono,
    }
    tx.run(insert(tables.job).values(**row))
    _changed(tx, row["job_id"], session["session_id"], "WAITING")
    return str(row["job_id"])


def find(tx: Transaction, job_id: str) -> RowMapping | None:
    """Return a job's row."""
    return tx.one(statements.JOB, key=job_id)


def of_session(tx: Transaction, session_id: str) -> Sequence[RowMapping]:
    """Return a session's jobs in queue order."""
    return tx.all(select(tables.job).where(_job.session_id == session_id).order_by(_job.sequence))


def set_state(tx: Transaction, row: RowMapping, state: str, **values: Any) -> None:
    """Bring a job into a state."""
    if state != "STOPPING":
        values["stop_to"] = ""
    if state != row["state"]:
        values = {"reason": ""} | values if row["stalled"] else values
        values |= {"state_ns": tx.wall_ns, "state_mono": tx.mono, "stalled": False}
    if state not in ("STOPPING", "PAUSED"):
        values["parked"] = False
    tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(state=state, **values))
    _changed(tx, row["job_id"], row["session_id"], state)


def change(tx: Transaction, row: RowMapping, **values: Any) -> None:
    """Change what is asked of a job; nothing happens when it is so already."""
    news = {name: value for name, value in values.items() if row[name] != value}
    if news:
        tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(**news))
        tx.changed_jobs.setdefault(row["job_id"], f"job_{row['state'].lower()}")
        tx.placement_wanted = True


def set_reason(tx: Transaction, row: RowMapping, reason: str) -> None:
    """Say why a job waits; nothing happens when that is known."""
    if row["reason"] != reason:
        tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(reason=reason))
        tx.changed_jobs.setdefault(row["job_id"], f"job_{row['state'].lower()}")


def set_progress(tx: Transaction, row: RowMapping, progress: str) -> None:
    """Keep the worker's sentence; a new one is progress."""
    if row["progress"] != progress:
        tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(progress=progress, **_moves(tx, row)))
        tx.changed_jobs.setdefault(row["job_id"], "job_progress")


def note_progress(tx: Transaction, row: RowMapping) -> None:
    """Something was achieved under the newest lease: earlier deaths no longer count."""
    news = row["failures_in_row"] or row["stalled"] or not row["progressed"]
    if news or tx.mono - row["progress_mono"] >= limits.PROGRESS_NOTED_SECONDS:
        values = {"failures_in_row": 0, "progressed": True, **_moves(tx, row)}
        tx.run(update(tables.job).where(_job.job_id == row["job_id"]).values(**values))


def _moves(tx: Transaction, row: RowMapping) -> dict[str, Any]:
    values: dict[str, Any] = {"progress_mono": tx.mono}
    if row["stalled"]:
        tx.changed_jobs.setdefault(row["job_id"], "job_progress")
        values |= {"stalled": False, "reason": ""}
    if row["stalls"] and believed_again(row["running_mono"], declarations.load(row["job_type"]).stall_limit_seconds, tx.mono):
        values["stalls"] = 0
    return values


def distrusted(tx: Transaction, row: RowMapping, why: str) -> None:
    """The job's worker is to be stopped because everything fails on it: it starts again, unless that has been tried enough."""
    values = {"failures": row["failures"] + 1, "failures_in_row": row["failures_in_row"] + 1}
    tx.notice("error", f"A worker is not trusted any more: {why}", row["session_id"])
    if values["failures_in_row"] >= limits.FAILURES_IN_ROW_MAX:
        set_state(tx, row, "FAILED", reason=why, **values)
    else:
        backoff = limits.RESTART_BACKOFF_SECONDS[-1]
        set_state(tx, row, "STOPPING", stop_to="WAITING", not_before_mono=tx.mono + backoff, **values)


def runs(tx: Transaction, job_id: str, epoch: int) -> None:
    """The job's newest lease is held."""
    row = find(tx, job_id)
    if row is not None and row["epoch"] == epoch and row["state"] in ("STARTING", "WAITING"):
        set_state(tx, row, "RUNNING", reason="", progress_mono=tx.mono, running_mono=tx.mono)


def released(tx: Transaction, job_id: str, epoch: int, effect: JobReleased) -> None:
    """A lease has let go of the job: decide where it goes. It keeps its place in the queue for life."""
    row = find(tx, job_id)
    if row is None:
        return
    tx.unsettled[row["session_id"]] = None
    if row["epoch"] != epoch or row["state"] not in ("STARTING", "RUNNING", "STOPPING"):
        return
    if row["state"] == "STOPPING":
        set_state(tx, row, row["stop_to"] or "WAITING", progress="")
    elif effect.cause in (Cause.DIED, Cause.UNSEEN, Cause.OUT_OF_MEMORY):
        _died(tx, row, effect)
    elif effect.cause is Cause.REFUSED:
        external = effect.detail.startswith(BUSY_EXTERNAL)  # that slot is out of service now: it may have another at once
        backoff = 0.0 if external else tx.mono + limits.REFUSED_BACKOFF_SECONDS
        reason = f"The agent did not start it ({effect.detail}); it is tried again."
        set_state(tx, row, "WAITING", reason=reason, progress="", not_before_mono=backoff)
    else:
        reason = _ELSEWHERE.get(effect.cause, "")
        set_state(tx, row, "WAITING", reason=reason, progress="")


def _died(tx: Transaction, row: RowMapping, effect: JobReleased) -> None:
    fault = effect.exit_code != 0 or not row["progressed"]
    failures, in_row = row["failures"] + fault, row["failures_in_row"] + fault
    last = last_words(effect.detail)
    words = f" Last words: {last}" if last else ""
    values = {"failures": failures, "failures_in_row": in_row, "progress": ""}
    if in_row >= limits.FAILURES_IN_ROW_MAX:
        sentence = f"Its worker died {in_row} times in a row without progress ({effect.how}).{words}"
        set_state(tx, row, "FAILED", reason=sentence, **values)
        title = declarations.load(row["job_type"]).title
        tx.notice("error", f"{title} has failed: {sentence}", row["session_id"])
        return
    delay = limits.RESTART_BACKOFF_SECONDS[min(max(in_row, 1), len(limits.RESTART_BACKOFF_SECONDS)) - 1]
    reason = f"Its worker died ({effect.how}); it starts again in {delay:.0f} s.{words}"
    set_state(tx, row, "WAITING", reason=reason, not_before_mono=tx.mono + delay, **values)


def _changed(tx: Transaction, job_id: str, session_id: str, state: str) -> None:
    tx.changed_jobs[job_id] = f"job_{state.lower()}"
    tx.unsettled[session_id] = None
    tx.topics.add(f"session:{session_id}")
    if state == "WAITING":
        tx.placement_wanted = True
