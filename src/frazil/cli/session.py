"""`frazil session …`: what the browser's buttons do, for terminals and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frazil.cli.options import SCHEDULER_DEFAULT, JsonOption, SchedulerOption, SessionArgument
from frazil.cli.parameters import Given, takes_session_parameters

app = typer.Typer(help="Sessions: create, start, pause, complete, look at, export.", no_args_is_help=True)


@app.command()
@takes_session_parameters
def create(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the session; unique.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with the movies; only ever read.")],
    lane: Annotated[str, typer.Option("--lane", help="Lane of the preprocessing workers.")] = "",
    reconstruction_lane: Annotated[str, typer.Option("--reconstruction-lane", help="Lane of the streaming jobs.")] = "",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of preprocessing workers.")] = 1,
    label: Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE of the LIMS; may be repeated.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Create a session; it is paused until it is started."""
    from frazil.api.session.v1.session_pb2 import ComputeResources
    from frazil.cli.parameters import session_parameters
    from frazil.cli.show import print_json, state_word
    from frazil.client import Client

    compute = ComputeResources(
        preprocessing_lane=lane, preprocessing_workers=workers, reconstruction_lane=reconstruction_lane or lane
    )
    parameters = session_parameters(folder, given)
    with Client(scheduler, patience_seconds=2.0) as client:
        session = client.create_session(name, parameters, compute=compute, labels=_labels(label or []))
        if start:
            session = client.start(session.session_id)
    if as_json:
        print_json(session)
    else:
        print(f"Session {session.name} is {state_word(session)}; its folder is {session.folder}")


def _labels(said: list[str]) -> dict[str, str]:
    from frazil.model.errors import FrazilError

    wrong = [label for label in said if "=" not in label]
    if wrong:
        raise FrazilError("LABEL_INVALID", f"--label is {wrong[0]!r}: write it as KEY=VALUE.")
    return {key: value for key, _, value in (label.partition("=") for label in said)}


def _change(verb: str, session: str, scheduler: str) -> None:
    from frazil.cli.show import counts_sentence, state_word
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        now = {"start": client.start, "pause": client.pause, "complete": client.complete}[verb](session)
    print(f"Session {now.name} is {state_word(now)}: {counts_sentence(now)}.")


@app.command()
def start(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Start or resume a session."""
    _change("start", session, scheduler)


@app.command()
def pause(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Pause a session: its GPU slots are released, nothing is lost."""
    _change("pause", session, scheduler)


@app.command()
def complete(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Say that no more movies will come: what is queued is worked off, results become final."""
    _change("complete", session, scheduler)


@app.command("list")
def list_sessions(scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """List sessions, newest first."""
    from frazil.cli.show import counts_sentence, print_json, print_table, state_word
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = list(client.sessions())
    if as_json:
        print_json(found)
        return
    rows = ((one.name, state_word(one), counts_sentence(one), one.parameters.movie_folder) for one in found)
    print_table(("session", "state", "progress", "movies"), rows, empty="There are no sessions yet.")


@app.command()
def show(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """Show a session: how far it is, what runs, what waits and why."""
    from frazil.api.scheduler.v1.scheduler_pb2 import Job
    from frazil.cli.show import counts_sentence, print_json, state_word
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.get_session(session)
        if as_json:
            print_json(found)
            return
        print(f"{found.name} ({found.session_id}) is {state_word(found)} {found.state_reason}".rstrip())
        print(f"  progress   {counts_sentence(found)}")
        arrived = f"{found.scan.files_seen} seen, {found.scan.files_settling} still arriving"
        print(f"  movies     {found.parameters.movie_folder} ({arrived})")
        if found.scan.problem:
            print(f"  problem    {found.scan.problem}")
        print(f"  results    {found.folder}")
        for job in client.jobs(session, active_only=True):
            waits = client.explain_wait(job.job_id).sentence if job.state == Job.STATE_WAITING else job.progress
            print(f"  {job.job_type:<10} {state_word(job)} {waits}".rstrip())


@app.command()
def watch(
    session: SessionArgument,
    after: Annotated[int, typer.Option("--after", min=0, help="Resume token: only events after it.")] = 0,
    until_now: Annotated[bool, typer.Option("--until-now", help="End at the newest event.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Follow a session's events, over disconnects and restarts, until it is completed or Ctrl-C."""
    import json

    from frazil.api.session.v1.session_pb2 import Session
    from frazil.cli.show import event_sentence
    from frazil.client import Client
    from frazil.io.export_records import plain

    with Client(scheduler, patience_seconds=2.0) as client:
        identity = client.get_session(session).session_id
        for event in client.events(identity, after=after, until_now=until_now):
            line = json.dumps(plain(event), ensure_ascii=False) if as_json else f"{event.sequence:>8}  {event_sentence(event)}"
            print(line, flush=True)
            completed = event.session.state == Session.STATE_COMPLETED and not until_now
            if completed and client.get_session(identity).state == Session.STATE_COMPLETED:  # and not started again since
                return


@app.command()
def export(
    session: SessionArgument,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; brought up to date if it exists.")],
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Write a session as STAR, .cs, MRC, CSV and an HTML report; also while it runs."""
    from frazil.cli.results import export_from, summary_lines
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        exported, snapshot = export_from(client, session, output)
    print("\n".join(summary_lines(snapshot, exported)))


@app.command()
def retry(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Put the movies that failed back into the queue, e.g. after the gain reference was corrected."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        count = client.retry_quarantined(session)
    print(f"{count} movies are back in the queue." if count != 1 else "1 movie is back in the queue.")
