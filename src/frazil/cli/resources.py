"""`frazil lane|node|gpu|job …`: what there is, who holds it, who waits and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from frazil.cli.options import SCHEDULER_DEFAULT, JsonOption, SchedulerOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frazil.api.scheduler.v1.scheduler_pb2 import GpuSlot, Job

lanes = typer.Typer(help="Lanes: named sets of GPU slots.", no_args_is_help=True)
nodes = typer.Typer(help="Nodes: machines whose agent has dialled in.", no_args_is_help=True)
gpus = typer.Typer(help="GPU slots and who holds them.", no_args_is_help=True)
jobs = typer.Typer(help="Jobs: list, show, explain, cancel.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Identity of a job.")]
SlotArgument = Annotated[str, typer.Argument(metavar="SLOT", help="Key of a slot, as `frazil gpu list` prints it.")]
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
    rows = ((lane.name, lane.backend, ", ".join(lane.node_globs) or "every node") for lane in found)
    print_table(("lane", "backend", "nodes"), rows, empty="There are no lanes.")


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
    rows = ((slot.slot_key, slot.node_id, slot.device_name, f"{slot.memory_mib:,} MiB", _holder(slot, by_id)) for slot in slots)
    print_table(("slot", "node", "device", "memory", "held by"), rows, empty="No agent has dialled in yet.")


@gpus.command("quarantine")
def quarantine_gpu(slot: SlotArgument, reason: ReasonOption, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Take a slot out of service."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.quarantine_gpu(slot, reason)
    print(f"{slot} is out of service: {reason}")


@gpus.command("clear")
def clear_gpu(slot: SlotArgument, reason: ReasonOption, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Put a slot back into service, after a probe by its agent."""
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
    print_table(("job", "type", "session", "lane", "state", "what"), _job_rows(found, names), empty="There are no jobs.")


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


def _holder(slot: GpuSlot, by_id: dict[str, Job]) -> str:
    if slot.quarantined:
        return f"out of service: {slot.quarantined}"
    if not slot.HasField("lease"):
        return "free"
    job = by_id.get(slot.lease.job_id)
    return f"{job.job_type} {job.job_id}" if job is not None else slot.lease.job_id


def _job_rows(found: Sequence[Job], names: dict[str, str]) -> list[tuple[str, ...]]:
    from frazil.cli.show import state_word

    return [
        (
            job.job_id,
            job.job_type,
            names.get(job.session_id, job.session_id),
            job.lane,
            state_word(job),
            job.reason or job.progress,
        )
        for job in found
    ]
