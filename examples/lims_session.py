"""What a LIMS does with Frazil, over gRPC alone: create a session, start it, follow it, print its results.

    python examples/lims_session.py --scheduler 127.0.0.1:50051 --folder /data/grid7 --diameter 140 --name grid7

It may be killed and started again at any moment: the resume token (the sequence number of the last event dealt with) is
kept in a file, so that no event is missed and none is seen twice. It ends when the session is completed; without
--complete-after somebody else completes it (the operator in the browser, `frazil session complete`).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from frazil.api.event.v1.event_pb2 import Event
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.session.v1.session_pb2 import Session, SessionParameters
from frazil.client import Client
from frazil.model.errors import ErrorKind, FrazilError


def main() -> int:
    """Drive one session from nothing to its results."""
    options = parse_arguments()
    token_file = Path(options.token_file or f"{options.name}.resume-token")
    with Client(options.scheduler) as frazil:
        session = find_or_create(frazil, options)
        if session.state == Session.STATE_PAUSED:
            session = frazil.start(session.session_id)
        print(f"session {session.name} ({session.session_id}) in {session.folder}")
        if session.state != Session.STATE_COMPLETED:
            follow(frazil, session.session_id, token_file, options.complete_after)
        print_results(frazil, session.session_id)
    return 0


def follow(frazil: Client, session_id: str, token_file: Path, complete_after: int) -> None:
    """Print what happens until the session is completed; completes it itself after so many exposures, if asked to."""
    for event in frazil.events(session_id, after=read_token(token_file)):
        sentence = describe(event)
        if sentence:
            print(f"{event.sequence:>8}  {sentence}", flush=True)
        write_token(token_file, event.sequence)
        if event.session.state == Session.STATE_COMPLETED:
            return
        if complete_after and event.kind.startswith("exposure"):
            session = frazil.get_session(session_id)
            if session.state == Session.STATE_RUNNING and session.counts.done + session.counts.quarantined >= complete_after:
                frazil.complete(session_id)


def find_or_create(frazil: Client, options: argparse.Namespace) -> Session:
    """Return the session of this name, creating it the first time."""
    try:
        return frazil.get_session(options.name)
    except FrazilError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
    parameters = SessionParameters(
        movie_folder=str(Path(options.folder).resolve()),
        particle_diameter_angstrom=options.diameter,
        class_count=options.classes,
    )
    # The LIMS's own references travel with the session and come back in every message.
    return frazil.create_session(options.name, parameters, labels={"proposal": "demo-1", "visit": "1", "grid": options.name})


def describe(event: Event) -> str:
    """Say in one line what an event means to the LIMS; empty for those that do not matter to it."""
    body = event.WhichOneof("body")
    if body == "session":
        return f"session is {Session.State.Name(event.session.state).removeprefix('STATE_').lower()}"
    if body == "exposure" and event.exposure.state == Exposure.STATE_DONE:
        result = event.exposure.result
        return (
            f"{event.exposure.file.relative_path}: motion {result.motion_total_angstrom:.1f} Å, "
            f"defocus {(result.defocus_u_angstrom + result.defocus_v_angstrom) / 20_000:.2f} µm, "
            f"fit to {result.ctf_fit_resolution_angstrom:.1f} Å, {result.particle_count} particles"
        )
    if body == "exposure" and event.exposure.state == Exposure.STATE_QUARANTINED:
        return f"{event.exposure.file.relative_path} failed: {event.exposure.failure}"
    if body == "class_averages":
        classes = event.class_averages
        return f"{len(classes.classes)} classes from {classes.particle_count} particles{' (final)' if classes.final else ''}"
    if body == "notice":
        return f"{event.notice.level}: {event.notice.sentence}"
    return ""


def print_results(frazil: Client, session_id: str) -> None:
    """Print what a LIMS would store: counts, the best classes, where the files are."""
    session = frazil.get_session(session_id)
    counts = session.counts
    print(f"\n{counts.done} of {counts.found} movies, {counts.quarantined} failed, {counts.particles} particles")
    classes = frazil.class_averages(session_id)
    if classes is not None:
        print(f"class averages: {Path(session.folder) / classes.averages}")
        for average in sorted(classes.classes, key=lambda one: one.particle_count, reverse=True)[:5]:
            resolution = f"{average.resolution_angstrom:.1f} Å" if average.HasField("resolution_angstrom") else "no resolution"
            print(f"  class {average.class_number}: {average.particle_count} particles, {resolution}")


def read_token(file: Path) -> int:
    """Return the stored resume token; 0 at the very first start."""
    return int(file.read_text()) if file.exists() else 0


def write_token(file: Path, sequence: int) -> None:
    """Store the resume token so that a crash leaves the old or the new one, never half a one."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    temporary.write_text(str(sequence))
    temporary.replace(file)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scheduler", default="127.0.0.1:50051", help="host:port of the scheduler")
    parser.add_argument("--name", required=True, help="name of the session")
    parser.add_argument("--folder", required=True, help="folder with the movies, as the scheduler's machine sees it")
    parser.add_argument("--diameter", type=float, required=True, help="particle diameter, Å")
    parser.add_argument("--classes", type=int, default=0, help="number of 2D classes (0: the default)")
    parser.add_argument("--complete-after", type=int, default=0, help="complete the session after so many exposures")
    parser.add_argument("--token-file", help="file of the resume token (default: NAME.resume-token)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FrazilError as error:
        sys.exit(f"{error.reason}: {error.sentence}")
    except KeyboardInterrupt:
        sys.exit(130)
