"""`frazil run`: one command over a finished or growing folder. The same command again goes on where it ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frazil.cli.options import Given
from frazil.cli.parameters import takes_session_parameters

if TYPE_CHECKING:
    from frazil.api.session.v1.session_pb2 import ComputeResources, Session, SessionParameters
    from frazil.client import Client
    from frazil.io.export_records import SessionSnapshot

STATE_FOLDER = ".frazil"
SESSION_NAME = "run"


@takes_session_parameters
def run(
    given: Given,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with the movies, at any depth; only ever read.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the results.")],
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Preprocessing workers (default: as fits).")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for more movies until Ctrl-C, then finish.")] = False,
    idle_seconds: Annotated[
        float, typer.Option("--idle-seconds", min=0.0, help="The folder is finished when nothing has changed for so long.")
    ] = 15.0,
    web: Annotated[bool, typer.Option("--web", help="Also serve the page.")] = False,
    web_port: Annotated[int, typer.Option("--web-port", min=0, max=65535, help="Port of the page (0: a free one).")] = 0,
) -> None:
    """Process a folder of movies: micrographs, CTF, particles and 2D classes as STAR, .cs and MRC files."""
    from frazil.cli import checks
    from frazil.cli.finished import forget_note, look_at, summary_of_finished, write_note
    from frazil.cli.parameters import session_parameters
    from frazil.cli.services import Deployment, ledger_for, node_id_for, slot_layout
    from frazil.cli.supervise import stop_signals
    from frazil.cli.up import say
    from frazil.io.export_names import exported_files

    state = output / STATE_FOLDER
    checks.check_movie_folder(folder)
    checks.check_output(output, folder, state)
    parameters = session_parameters(folder, given)
    seen = look_at(folder, checks.find_movies(folder, parameters.movie_glob, opt_in=parameters.read_bzip2))
    summary = None if watch or web else summary_of_finished(state, parameters, movies=seen, output=output)
    if summary is not None:
        print(f"Nothing new in {folder}: {output} holds all results.\n" + "\n".join(summary), flush=True)
        return
    checks.check_movies(folder, parameters, may_be_empty=watch)
    layout = slot_layout(workers)
    elsewhere = ledger_for(state)
    deployment = Deployment(
        data_dir=state,
        web_port=web_port if web else None,
        cpu_slots=layout.cpu_slots,
        slots_per_gpu=layout.slots_per_gpu,
        node_id=node_id_for(state),
        ledger=elsewhere or state / "ledger.sqlite",  # its own, whatever the environment says
    )
    output.mkdir(parents=True, exist_ok=True)
    if elsewhere is not None:
        say(f"{output} is on a network disk; what is done is noted in {elsewhere}, which a rerun needs.")
    with stop_signals(), deployment.supervisor(say):
        forget_note(state)
        from frazil.api.session.v1.session_pb2 import ComputeResources
        from frazil.client import Client

        if web:
            print(f"Page: {deployment.web_address}", flush=True)
        with Client(deployment.scheduler_address) as client:
            session_id = find_or_create(client, parameters, ComputeResources(preprocessing_workers=layout.workers), output)
            _follow(client, session_id, state, idle_seconds=None if watch else idle_seconds)
            written = _write_results(client, session_id, output)
        if written is None:
            raise typer.Exit(1)
        snapshot, summary = written
        results = look_at(output, exported_files(output))
        write_note(state, parameters, seen=seen, exposures=snapshot.exposures, results=results, summary=summary)


def find_or_create(client: Client, parameters: SessionParameters, compute: ComputeResources, output: Path) -> str:
    """Return the identity of this folder's session; raises FrazilError when it was run with other parameters."""
    from frazil.cli.parameters import differences
    from frazil.model.errors import ErrorKind, FrazilError

    try:
        session = client.get_session(SESSION_NAME)
    except FrazilError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
        return client.create_session(SESSION_NAME, parameters, compute=compute).session_id
    differing = differences(session.parameters, parameters)
    if differing:
        raise FrazilError(
            "PARAMETERS_DIFFER",
            f"{output} holds results of other parameters ({'; '.join(differing)}): "
            "give the same ones to go on, or choose another --output.",
        )
    return session.session_id


def _follow(client: Client, session_id: str, state: Path, *, idle_seconds: float | None) -> None:
    """Follow the session to its end. Ctrl-C pauses it, or ends --watch."""
    from frazil.api.session.v1.session_pb2 import Session
    from frazil.cli.follow import EventFeed, Follower, begin_session, folder_is_finished, make_view

    begin_session(client, session_id)
    feed = EventFeed(client, session_id, state / "resume-token")

    def is_finished(session: Session) -> bool:
        if idle_seconds is None or not folder_is_finished(session.scan, idle_seconds):
            return False
        _require_movies(session)
        return True

    with make_view() as view:
        follower = Follower(client, session_id, view)
        try:
            follower.run(feed, is_finished=is_finished)
        except KeyboardInterrupt:
            if idle_seconds is None and client.get_session(session_id).state == Session.STATE_RUNNING:
                view.line("No more movies are awaited: finishing. Ctrl-C again stops at once.")
                client.complete(session_id)
                follower.run(feed, is_finished=lambda _: False)
            else:
                view.line("Stopping; the same command goes on where this ended.")
                client.pause(session_id)
                raise


def _require_movies(session: Session) -> None:
    from frazil.model.errors import FrazilError

    if session.scan.files_seen == 0 and session.counts.found == 0:
        raise FrazilError(
            "NO_MOVIES", f"There are no movies in {session.parameters.movie_folder}: check the path, or add --watch to wait."
        )


def _write_results(client: Client, session_id: str, output: Path) -> tuple[SessionSnapshot, list[str]] | None:
    """Export the session and print its summary; None when there are no results or something failed."""
    from frazil.api.scheduler.v1.scheduler_pb2 import Job
    from frazil.cli.follow import clipped
    from frazil.cli.results import export_from, summary_lines

    exported, snapshot = export_from(client, session_id, output)
    done = exported.micrograph_count > 0
    failed = [
        clipped(f"{job.job_type} failed: {job.reason}") for job in client.jobs(session_id) if job.state == Job.STATE_FAILED
    ]
    summary = summary_lines(snapshot, exported)
    omission = client.get_session(session_id).scan.omission
    if omission:
        failed.append(omission.rstrip("."))
    print("\nNot complete: " + "; ".join(failed) if failed else "\nDone." if done else "\nNo movie could be processed.")
    print("\n".join(summary), flush=True)
    return (snapshot, summary) if done and not failed else None
