"""Words and tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from google.protobuf.message import Message

from frazil.api.event.v1.event_pb2 import Event
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from frazil.api.scheduler.v1.scheduler_pb2 import Job
from frazil.api.session.v1.session_pb2 import Session
from frazil.io.export_records import plain


def print_json(value: Message | Iterable[Message]) -> None:
    """Print one message or a list of them as JSON."""
    content: Any = plain(value) if isinstance(value, Message) else [plain(one) for one in value]
    print(json.dumps(content, indent=1, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print a table, or the sentence `empty` when there are no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if count:
        console.print(table)
    else:
        print(empty)


def state_word(message: Session | Exposure | Job) -> str:
    """Return a state as a lower-case word."""
    states = message.DESCRIPTOR.enum_types_by_name["State"].values_by_number
    return str(states[message.state].name).removeprefix("STATE_").lower()


def job_word(job: Job) -> str:
    """Return a job's state as a word, and whether it is parked or stalled."""
    return "parked" if job.parked else state_word(job) + (" (stalled)" if job.stalled else "")


def counts_sentence(session: Session) -> str:
    """Say how far a session has come."""
    counts = session.counts
    words = [f"{counts.done} of {counts.found} movies"]
    words += [f"{counts.quarantined} failed"] if counts.quarantined else []
    words += [f"{counts.rejected} rejected"] if counts.rejected else []
    words += [f"{counts.particles:,} particles"] if counts.particles else []
    words += [f"{counts.particles_classified:,} classified"] if counts.particles_classified else []
    return ", ".join(words)


def event_sentence(event: Event) -> str:
    """Say in one line what an event is about."""
    body = event.WhichOneof("body")
    if body == "session":
        return f"session {event.session.name} is {state_word(event.session)} {event.session.state_reason}".rstrip()
    if body == "exposure":
        return _exposure_sentence(event.exposure)
    if body == "particle_block":
        return f"block {event.particle_block.sequence}: {event.particle_block.particle_count} particles"
    if body == "templates":
        return f"{len(event.templates.templates)} templates from {event.templates.source} (job {event.templates.job_id})"
    if event.kind == "class_averages_cleared":
        return "the class averages were taken away"
    if body == "class_averages":
        classes = event.class_averages
        final = ", final" if classes.final else ""
        return f"{len(classes.classes)} classes of {classes.particle_count:,} particles (revision {classes.revision}{final})"
    if body == "volume":
        return _volume_sentence(event.volume)
    if body == "job":
        return f"{event.job.job_type} is {job_word(event.job)} {event.job.reason or event.job.progress}".rstrip()
    if body == "node":
        return f"node {event.node.node_id}"
    return event.notice.sentence if body == "notice" else ""


def failure_sentence(exposure: Exposure) -> str:
    """Say why a movie failed and which one, without naming it twice."""
    name, failure = exposure.file.relative_path, exposure.failure
    return failure if PurePosixPath(name).name in failure else f"{name}: {failure}"


def _volume_sentence(volume: Volume) -> str:
    resolution = f" at {volume.resolution_angstrom:.1f} Å" if volume.HasField("resolution_angstrom") else ""
    final = ", final" if volume.final else ""
    return f"volume of {volume.particle_count:,} particles{resolution} (revision {volume.revision}{final})"


def _exposure_sentence(exposure: Exposure) -> str:
    name = exposure.file.relative_path
    if exposure.state == Exposure.STATE_QUARANTINED:
        return f"failed: {failure_sentence(exposure)}"
    if exposure.state != Exposure.STATE_DONE:
        return f"{name} is {state_word(exposure)}"
    result = exposure.result
    fit = f"{result.ctf_fit_resolution_angstrom:.1f} Å" if result.HasField("ctf_fit_resolution_angstrom") else "no fit"
    defocus = (result.defocus_u_angstrom + result.defocus_v_angstrom) / 20_000
    return (
        f"{name}: motion {result.motion_total_angstrom:.1f} Å, defocus {defocus:.2f} µm, CTF {fit}, "
        f"{result.particle_count} particles"
    )
