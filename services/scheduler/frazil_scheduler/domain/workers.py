"""What a worker asks under its lease; a stale epoch is refused before anything else."""

from __future__ import annotations

import json

from sqlalchemy import RowMapping, update

from frazil import jobs as declarations
from frazil.api.worker.v1 import worker_pb2
from frazil_scheduler import lease as machine
from frazil_scheduler.domain import (
    attempts,
    blocks,
    class_selection,
    exposures,
    jobs,
    leases,
    limits,
    memory,
    reconstruction,
    sessions,
    templates,
    volumes,
)
from frazil_scheduler.ledger import records, tables
from frazil_scheduler.ledger.transaction import Transaction

_lease = tables.lease.c


def attach(tx: Transaction, request: worker_pb2.AttachRequest) -> worker_pb2.AttachResponse:
    """Tell a worker what it is to do."""
    _, job = leases.current(tx, request.lease)
    session = sessions.require(tx, job["session_id"])
    reply = reconstruction.attach(tx, job, session)
    reply.start_volume = volumes.start_volume(tx, session)
    reply.newest_volume = volumes.newest_path(tx, session["session_id"])
    reply.parameters.update(json.loads(job["parameters"] or "{}"))
    about = exposures.find(tx, reply.parameters["exposure"]) if "exposure" in reply.parameters else None
    if about is not None and about["session_id"] == session["session_id"]:
        reply.exposure.CopyFrom(records.exposure_record(about))
    return reply


def session_of(tx: Transaction, token: worker_pb2.LeaseToken) -> str:
    """Return the identity of the session that a worker works for."""
    _, job = leases.current(tx, token)
    return str(job["session_id"])


def should_stop(tx: Transaction, token: worker_pb2.LeaseToken) -> bool:
    """Tell a worker whether to stop."""
    lease, _ = leases.current(tx, token)
    return bool(lease["state"] == "RELEASING")


def keep_progress(tx: Transaction, request: worker_pb2.HeartbeatRequest) -> None:
    """Keep the worker's sentence for people."""
    _, job = leases.current(tx, request.lease)
    jobs.set_progress(tx, job, request.progress[: limits.REASON_MAX_CHARACTERS])


def claim(tx: Transaction, request: worker_pb2.ClaimExposuresRequest) -> tuple[worker_pb2.ClaimExposuresResponse, float | None]:
    """Take exposures; also return after how long it is worth asking again without news."""
    lease, job = leases.current(tx, request.lease)
    session = sessions.require(tx, job["session_id"])

    def take() -> worker_pb2.ClaimExposuresResponse:
        if lease["state"] == "RELEASING" or session["state"] not in ("RUNNING", "COMPLETING"):
            return worker_pb2.ClaimExposuresResponse(stop=True)
        claims = attempts.claim(tx, session, lease, request.max_count)
        return worker_pb2.ClaimExposuresResponse(claims=claims, drained=not claims and sessions.is_drained(tx, session))

    if request.request_id:
        reply = tx.once(request, worker_pb2.ClaimExposuresResponse, take, keep=lambda reply: bool(reply.claims))
    else:
        reply = take()
    return reply, None if reply.claims else attempts.seconds_until_ready(tx, session)


def commit(tx: Transaction, request: worker_pb2.CommitExposureRequest) -> worker_pb2.CommitExposureResponse:
    """Make an attempt's result count, exactly once."""

    def body() -> worker_pb2.CommitExposureResponse:
        lease, job = leases.current(tx, request.lease)
        reply = attempts.commit(tx, lease, worker_pb2.CommitExposureRequest.FromString(request.SerializeToString()))
        jobs.note_progress(tx, job)
        if lease["failures_in_row"]:
            leases.count_failures(tx, lease, 0)
        return reply

    return tx.once(request, worker_pb2.CommitExposureResponse, body)


def fail(tx: Transaction, request: worker_pb2.FailExposureRequest) -> worker_pb2.FailExposureResponse:
    """End an attempt without a result."""

    def body() -> worker_pb2.FailExposureResponse:
        lease, job = leases.current(tx, request.lease)
        hopeless = attempts.fail(tx, lease, request)
        if attempts.OUTCOME_OF_CLASS[request.failure_class] in ("CRASH", "RESOURCE") and _distrust(tx, lease, job, request):
            return worker_pb2.FailExposureResponse()
        if hopeless:
            jobs.note_progress(tx, job)
        return worker_pb2.FailExposureResponse()

    return tx.once(request, worker_pb2.FailExposureResponse, body)


def _distrust(tx: Transaction, lease: RowMapping, job: RowMapping, request: worker_pb2.FailExposureRequest) -> bool:
    """Stop a worker on which one exposure after the other fails: a bad GPU must not eat the queue. Tell whether it was."""
    failures = lease["failures_in_row"] + 1
    leases.count_failures(tx, lease, failures)
    if failures < limits.WORKER_FAILURES_MAX or job["state"] != "RUNNING" or not attempts.forgive(tx, lease["lease_id"]):
        return False
    leases.count_failures(tx, lease, 0)
    jobs.distrusted(tx, job, f"{failures} exposures in a row failed on {lease['slot_key']}, the last with: {request.reason}")
    if attempts.OUTCOME_OF_CLASS[request.failure_class] == "RESOURCE":
        memory.ask_for_more(tx, lease["lease_id"])
    leases.ask_stop(tx, job, machine.Stop.DRAIN, job["drain_seconds"])
    return True


def read_blocks(tx: Transaction, request: worker_pb2.ReadParticleBlocksRequest) -> worker_pb2.ReadParticleBlocksResponse:
    """Return particle blocks after the cursor."""
    lease, job = leases.current(tx, request.lease)
    session = sessions.require(tx, job["session_id"])
    rows = blocks.read(tx, session["session_id"], request.after_sequence, min(request.max_count or 100, 1000))
    last = rows[-1]["sequence"] if rows else request.after_sequence
    reply = worker_pb2.ReadParticleBlocksResponse(
        blocks=[records.block_record(row) for row in rows],
        end_of_input=last >= session["block_sequence"] and sessions.is_drained(tx, session),
        stop=lease["state"] == "RELEASING",
    )
    if request.HasField("class_revision"):
        class_selection.tell(tx, session, request, reply)
    return reply


def commit_checkpoint(tx: Transaction, request: worker_pb2.CommitCheckpointRequest) -> worker_pb2.CommitCheckpointResponse:
    """Make a checkpoint the one to resume from."""

    def body() -> worker_pb2.CommitCheckpointResponse:
        _, job = leases.current(tx, request.lease)
        return reconstruction.commit_checkpoint(tx, job, request.checkpoint)

    return tx.once(request, worker_pb2.CommitCheckpointResponse, body)


def publish(tx: Transaction, request: worker_pb2.PublishClassAveragesRequest) -> worker_pb2.PublishClassAveragesResponse:
    """Publish class averages."""

    def body() -> worker_pb2.PublishClassAveragesResponse:
        _, job = leases.current(tx, request.lease)
        copy = worker_pb2.PublishClassAveragesRequest.FromString(request.SerializeToString())
        return reconstruction.publish(tx, job, copy.class_averages)

    return tx.once(request, worker_pb2.PublishClassAveragesResponse, body)


def publish_volume(tx: Transaction, request: worker_pb2.PublishVolumeRequest) -> worker_pb2.PublishVolumeResponse:
    """Publish a volume."""

    def body() -> worker_pb2.PublishVolumeResponse:
        _, job = leases.current(tx, request.lease)
        copy = worker_pb2.PublishVolumeRequest.FromString(request.SerializeToString())
        return volumes.publish(tx, job, copy.volume)

    return tx.once(request, worker_pb2.PublishVolumeResponse, body)


def publish_templates(tx: Transaction, request: worker_pb2.PublishTemplatesRequest) -> worker_pb2.PublishTemplatesResponse:
    """Publish templates for the picker."""

    def body() -> worker_pb2.PublishTemplatesResponse:
        _, job = leases.current(tx, request.lease)
        copy = worker_pb2.PublishTemplatesRequest.FromString(request.SerializeToString())
        return templates.publish(tx, job, copy.templates)

    return tx.once(request, worker_pb2.PublishTemplatesResponse, body)


def notify(tx: Transaction, request: worker_pb2.NotifyRequest) -> worker_pb2.NotifyResponse:
    """Tell people what a worker has to say."""

    def body() -> worker_pb2.NotifyResponse:
        _, job = leases.current(tx, request.lease)
        level = request.level if request.level in ("info", "warning") else "warning"
        sentence = request.sentence.strip()[: limits.REASON_MAX_CHARACTERS]
        tx.notice(level, f"{jobs.title(job['job_type'])}: {sentence}", job["session_id"])
        return worker_pb2.NotifyResponse()

    return tx.once(request, worker_pb2.NotifyResponse, body)


def finish(tx: Transaction, request: worker_pb2.FinishJobRequest) -> worker_pb2.FinishJobResponse:
    """End a job: it has finished, or cannot go on. A streaming job whose input goes on is put back into the queue."""

    def body() -> worker_pb2.FinishJobResponse:
        lease, job = leases.current(tx, request.lease)
        if job["state"] in jobs.TERMINAL:
            return worker_pb2.FinishJobResponse()
        session = sessions.require(tx, job["session_id"])
        failure = request.failure.strip()[: limits.REASON_MAX_CHARACTERS]
        if failure:
            jobs.set_state(tx, job, "FAILED", reason=failure)
            title = declarations.load(job["job_type"]).title
            tx.notice("error", f"{title} has failed: {failure}", session["session_id"])
        elif job["state"] == "STOPPING":
            return worker_pb2.FinishJobResponse()  # it was stopped: it goes where the stop leads
        elif job["indefinite"] and not sessions.is_drained(tx, session):
            jobs.set_state(tx, job, "STOPPING", stop_to="WAITING")
            leases.ask_stop(tx, job, machine.Stop.DRAIN, limits.FINISH_SECONDS)
            return worker_pb2.FinishJobResponse()
        else:
            jobs.set_state(tx, job, "DONE", reason="")
        kill_after = {"stop_mono": tx.mono + limits.FINISH_SECONDS}
        tx.run(update(tables.lease).where(_lease.lease_id == lease["lease_id"]).values(**kill_after))
        return worker_pb2.FinishJobResponse()

    return tx.once(request, worker_pb2.FinishJobResponse, body)
