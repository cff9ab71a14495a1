"""Results for people: the export of a session and a summary of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.reconstruction.v1.reconstruction_pb2 import Volume
from frazil.cli.show import failure_sentence
from frazil.io.export_records import SessionSnapshot
from frazil.model.errors import FrazilError

if TYPE_CHECKING:
    from frazil.client import Client
    from frazil.io.export import Exported

_FAILURES_SHOWN = 10


def take_snapshot(client: Client, session: str) -> SessionSnapshot:
    """Ask the scheduler for everything that an export needs."""
    found = client.get_session(session)
    devices = sorted({slot.device_name for node in client.nodes() for slot in node.slots})
    return SessionSnapshot(
        session=found,
        exposures=list(client.exposures(found.session_id)),
        classes=client.class_averages(found.session_id),
        refined=client.volume(found.session_id, Volume.KIND_REFINEMENT),
        ab_initio=client.volume(found.session_id, Volume.KIND_AB_INITIO),
        devices=devices,
    )


def export_from(
    client: Client, session: str, output: Path, *, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> tuple[Exported, SessionSnapshot]:
    """Export a session. In a running one a newer classification may replace files meanwhile: then once more."""
    from frazil.io.export import export_session

    try:
        snapshot = take_snapshot(client, session)
        return export_session(snapshot, output, progress=progress), snapshot
    except FrazilError as error:
        if error.reason != "RESULT_MISSING":
            raise
    snapshot = take_snapshot(client, session)
    return export_session(snapshot, output, progress=progress), snapshot


def summary_lines(snapshot: SessionSnapshot, exported: Exported) -> list[str]:
    """Return what a person wants to read at the end."""
    failed = [exposure for exposure in snapshot.exposures if exposure.state == Exposure.STATE_QUARANTINED]
    lines = [
        f"  movies      {len(snapshot.exposures):>8,}   {exported.micrograph_count:,} processed, {len(failed):,} failed",
        f"  particles   {exported.particle_count:>8,}",
    ]
    if snapshot.classes is not None:
        good = [one for one in snapshot.classes.classes if one.selected]
        best = min((one.resolution_angstrom for one in good if one.HasField("resolution_angstrom")), default=None)
        words = f"{len(good)} good" + (f", best {best:.1f} Å" if best else "")
        lines.append(f"  2D classes  {exported.class_count:>8,}   {words}")
    if snapshot.refined is not None:
        lines.append(
            f"  3D          {snapshot.refined.particle_count:>8,}   particles, {snapshot.refined.resolution_angstrom:.1f} Å"
        )
    lines += [f"  failed      {failure_sentence(one)}" for one in failed[:_FAILURES_SHOWN]]
    if len(failed) > _FAILURES_SHOWN:
        lines.append(f"              and {len(failed) - _FAILURES_SHOWN:,} more: see exposures.csv")
    lines.append(f"  written to  {exported.folder}   (open report.html)")
    return lines
