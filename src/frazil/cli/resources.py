"""`frazil lane|node|gpu|job …`: what there is, who holds it, who waits and why."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frazil.cli.options import SCHEDULER_DEFAULT, JsonOption, SchedulerOption, SessionArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frazil.api.scheduler.v1.scheduler_pb2 import GpuSlot, Job, Lane

lanes = typer.Typer(help="Lanes: named sets of GPU slots.", no_args_is_help=True)
nodes = typer.Typer(help="Nodes: machines whose agent has dialled in.", no_args_is_help=True)
gpus = typer.Typer(help="GPU slots and who holds them.", no_args_is_help=True)
jobs = typer.Typer(help="Jobs: list, explain, submit, cancel, kill, requeue.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Identity of a job.")]
SlotArgument = Annotated[str, typer.Argument(metavar="SLOT", help="Key of a slot, as `frazil gpu list` prints it.")]
LaneArgument = Annotated[str, typer.Argument(metavar="LANE", help="Name of a lane.")]
OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", help='NAME=VALUE of the backend, the value as in TOML, e.g. nodes=["gpu*"]; may be repeated.'),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for those who come after.")]


@lanes.command("list")
def list_lanes(scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """List the lanes."""
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.lanes()
    if as_json:
        print_json(found)
        return
    rows = (
        (lane.name, lane.backend, _where(lane), "frazil.toml" if lane.from_file else "added", lane.problem) for lane in found
    )
    print_table(("lane", "backend", "where", "from", "problem"), rows, empty="There are no lanes.")


@lanes.command("create")
def create_lane(
    lane: LaneArgument,
    backend: Annotated[str, typer.Option("--backend", help="node, slurm or kubernetes.")] = "node",
    option: OptionOption = None,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Add a lane; it stays over restarts."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.create_lane(lane, backend, _options(option))
    print(f"Lane {lane} is there.")


@lanes.command("update")
def update_lane(lane: LaneArgument, option: OptionOption = None, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Replace the options of a lane; running jobs go on."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.update_lane(lane, _options(option))
    print(f"Lane {lane} is changed.")


@lanes.command("delete")
def delete_lane(lane: LaneArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Remove a lane that nobody uses."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.delete_lane(lane)
    print(f"Lane {lane} is gone.")


@nodes.command("list")
def list_nodes(scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """List the nodes."""
    from frazil.api.scheduler.v1.scheduler_pb2 import Node
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.nodes()
    if as_json:
        print_json(found)
        return
    rows = (
        (
            node.node_id,
            Node.State.Name(node.state).removeprefix("STATE_").lower(),
            str(len(node.slots)),
            ", ".join(sorted({slot.device_name for slot in node.slots})),
            ", ".join(node.programs),
        )
        for node in found
    )
    print_table(("node", "state", "slots", "devices", "programs"), rows, empty="No agent has dialled in yet.")


@nodes.command("fence")
def fence_node(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of a lost node.")],
    attested_by: Annotated[str, typer.Option("--attested-by", help="Who knows that every process there is dead, and how.")],
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Attest that every process on a lost node is dead: its leases are freed without proof from the node."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.fence_node(node, attested_by)
    print(f"{node} is fenced: its slots are free.")


@gpus.command("list")
def list_gpus(scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """List the slots and who holds them."""
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        slots = [slot for node in client.nodes() for slot in node.slots]
        by_id = {job.job_id: job for job in client.jobs(active_only=True)}
    if as_json:
        print_json(slots)
        return
    rows = (
        (slot.slot_key, slot.node_id, slot.device_name, f"{slot.memory_mib:,} MiB", _use(slot), *_holder(slot, by_id))
        for slot in slots
    )
    columns = ("slot", "node", "device", "share", "in use", "held by", "since")
    print_table(columns, rows, empty="No agent has dialled in yet.")


@gpus.command("drain")
def drain_gpu(slot: SlotArgument, reason: ReasonOption, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Give a GPU no new job; those on it go on to their end."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.drain_gpu(slot, reason)
    print(f"{slot} gets no new job: {reason}")


@gpus.command("quarantine")
def quarantine_gpu(slot: SlotArgument, reason: ReasonOption, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Take a slot out of service."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.quarantine_gpu(slot, reason)
    print(f"{slot} is out of service: {reason}")


@gpus.command("clear")
def clear_gpu(slot: SlotArgument, reason: ReasonOption, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Put a drained or quarantined slot back into service, a quarantined one after a probe by its agent."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.clear_gpu(slot, reason)
    print(f"{slot} goes back into service once its agent has proved it free.")


@jobs.command("list")
def list_jobs(
    session: Annotated[str, typer.Option("--session", help="Only those of one session.")] = "",
    active: Annotated[bool, typer.Option("--active", help="Only those that wait or run.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List jobs in queue order."""
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.jobs(session, active_only=active)
        names = {one.session_id: one.name for one in client.sessions()}
    if as_json:
        print_json(found)
        return
    print_table(
        ("job", "type", "session", "lane", "priority", "state", "what"), _job_rows(found, names), empty="There are no jobs."
    )


@jobs.command("show")
def show_job(job: JobArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Print everything about a job, as JSON."""
    from frazil.cli.show import print_json
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        print_json(client.get_job(job))


@jobs.command("explain")
def explain_job(job: JobArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """Say why a job waits, who blocks it and what can be done."""
    from frazil.cli.show import print_json
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        reply = client.explain_wait(job)
    if as_json:
        print_json(reply)
        return
    print(reply.sentence)
    for blocker in reply.blockers:
        until = "until it is paused" if blocker.indefinite else "until it is done"
        print(f"  {blocker.slot_key} is held {until} by {blocker.job_type} {blocker.job_id} of session {blocker.session_id}")
    if reply.remedy:
        print(f"What can be done: {reply.remedy}")


@jobs.command("cancel")
def cancel_job(job: JobArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Cancel a job; its slot is released once its worker is proven dead."""
    from frazil.cli.show import state_word
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        print(f"{job} is {state_word(client.cancel_job(job))}.")


@jobs.command("submit")
def submit_job(
    session: SessionArgument,
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="An auxiliary job, e.g. abinitio.")],
    lane: Annotated[str, typer.Option("--lane", help="Lane (default: the session's auxiliary lane).")] = "",
    gpu: Annotated[list[str] | None, typer.Option("--gpu", help="GPU or slot it is bound to; may be repeated.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", min=0, max=100, help="Default: the session's.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("--parameter", help="NAME=VALUE; may be repeated.")] = None,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Queue an auxiliary job of a session."""
    from frazil.client import Client

    parameters = dict(_pair("--parameter", word) for word in parameter or [])
    with Client(scheduler, patience_seconds=2.0) as client:
        job = client.submit_job(session, job_type, lane=lane, gpus=gpu or [], priority=priority, parameters=parameters)
    print(f"{job.job_id} is queued in lane {job.lane}.")


@jobs.command("priority")
def set_priority(
    job: JobArgument,
    priority: Annotated[int, typer.Argument(metavar="PRIORITY", min=0, max=100, help="0 to 100; the highest is served first.")],
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Change a job's priority in the queue."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.set_job_priority(job, priority)
    print(f"{job} has priority {priority}.")


@jobs.command("kill")
def kill_job(job: JobArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """End a job's worker at once, without a checkpoint; the job is cancelled."""
    from frazil.cli.show import state_word
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        print(f"{job} is {state_word(client.kill_job(job))}.")


@jobs.command("requeue")
def requeue_job(job: JobArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Put a job back into the queue: a running one after a checkpoint, a failed or cancelled one as it ended."""
    from frazil.cli.show import state_word
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        print(f"{job} is {state_word(client.requeue_job(job))}.")


def _where(lane: Lane) -> str:
    states = Counter(job.state.lower() for job in lane.cluster_jobs if job.state != "ENDED")
    if states or lane.backend != "node":
        return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no cluster job"
    return ", ".join(lane.node_globs) or "every node"


def _use(slot: GpuSlot) -> str:
    if not slot.gpu_memory_total_mib:
        return ""
    return f"{slot.gpu_memory_used_mib:,} MiB, {slot.gpu_utilization_percent} %"


def _holder(slot: GpuSlot, by_id: dict[str, Job]) -> tuple[str, str]:
    if slot.quarantined:
        return f"out of service: {slot.quarantined}", ""
    if not slot.HasField("lease"):
        return (f"drained: {slot.drained}" if slot.drained else "free"), ""
    job = by_id.get(slot.lease.job_id)
    who = f"{job.job_type} {job.job_id}" if job is not None else slot.lease.job_id
    draining = f" (then drained: {slot.drained})" if slot.drained else ""
    return who + draining, slot.lease.grant_time.ToDatetime(UTC).astimezone().strftime("%d %b %H:%M")


def _pair(flag: str, word: str) -> tuple[str, str]:
    from frazil.model.errors import FrazilError

    name, equals, value = word.partition("=")
    if not name or not equals:
        raise FrazilError("OPTION_INVALID", f"{flag} is {word!r}: write it as NAME=VALUE.")
    return name, value


def _options(words: list[str] | None) -> dict[str, Any]:
    """Return a backend's options; a value that is no TOML is text."""
    import tomllib

    options: dict[str, Any] = {}
    for name, value in (_pair("--option", word) for word in words or []):
        try:
            options[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = value
    return options


def _job_rows(found: Sequence[Job], names: dict[str, str]) -> list[tuple[str, ...]]:
    from frazil.cli.show import job_word

    return [
        (
            job.job_id,
            job.job_type,
            names.get(job.session_id, job.session_id),
            job.lane,
            str(job.priority),
            job_word(job),
            job.reason or job.progress,
        )
        for job in found
    ]
