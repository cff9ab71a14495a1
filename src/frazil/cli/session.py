"""`frazil session …`: what the browser's buttons do, for terminals and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frazil.cli.compute import takes_compute
from frazil.cli.options import SCHEDULER_DEFAULT, Given, JsonOption, SchedulerOption, SessionArgument
from frazil.cli.parameters import takes_session_parameters

if TYPE_CHECKING:
    from frazil.api.session.v1.session_pb2 import ComputeResources, Session

app = typer.Typer(help="Sessions: create, start, pause, complete, look at, export.", no_args_is_help=True)


@app.command()
@takes_compute
@takes_session_parameters
def create(
    given: Given,
    compute: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the session; unique.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with the movies; only ever read.")],
    label: Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE of the LIMS; may be repeated.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Create a session; it is paused until it is started."""
    from frazil.cli.compute import compute_resources
    from frazil.cli.parameters import session_parameters
    from frazil.cli.show import print_json, state_word
    from frazil.client import Client

    parameters, resources = session_parameters(folder, given), compute_resources(compute)
    with Client(scheduler, patience_seconds=2.0) as client:
        session = client.create_session(name, parameters, compute=resources, labels=_labels(label or []))
        if start:
            session = client.start(session.session_id)
        advice = client.advise_compute(session.session_id)
    if as_json:
        print_json(session)
        return
    print(f"Session {session.name} is {state_word(session)}; its folder is {session.folder}")
    for sentence in advice.sentences:
        print(f"  {sentence}")


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


@app.command()
def clone(
    session: SessionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new session.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Its folder with movies (default: the same).")] = None,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Create a session with the parameters and compute resources of another."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        made = client.clone_session(session, name, movie_folder=str(folder.resolve()) if folder else "")
    print(f"Session {made.name} is paused; it watches {made.parameters.movie_folder} once it is started.")


@app.command()
def delete(
    session: SessionArgument,
    results: Annotated[bool, typer.Option("--results", help="Delete its results on disk, too. Movies always stay.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Forget a session that is paused or completed."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.get_session(session)
        what = f"session {found.name} and everything in {found.folder}" if results else f"session {found.name}"
        if not yes:
            typer.confirm(f"Delete {what}?", abort=True)
        reply = client.delete_session(found.session_id, delete_results=results)
    left = "its results are being deleted" if reply.results_deleted else f"its results stay in {reply.folder}"
    print(f"Session {found.name} is forgotten; {left}.")


@app.command()
@takes_compute
def plan(
    session: SessionArgument, compute: Given, scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False
) -> None:
    """Say what a session's jobs would get of the GPUs at hand, what would wait, and what to do; changes nothing."""
    from frazil.cli.compute import compute_resources, print_advice
    from frazil.cli.show import print_json
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.get_session(session)
        advice = client.advise_compute(session, compute=compute_resources(compute, _newest_compute(found)))
    if as_json:
        print_json(advice)
    else:
        print_advice(advice)


@app.command("compute")
@takes_compute
def change_compute(
    session: SessionArgument,
    compute: Given,
    now: Annotated[bool, typer.Option("--now", help="At once, not only from the next start on.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Show where a session's jobs run, or change it: only what is said."""
    from frazil.cli.compute import compute_lines, compute_resources
    from frazil.client import Client

    said = any(value is not None for value in compute.values())
    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.get_session(session)
        if said or now:
            found = client.update_compute(found.session_id, compute_resources(compute, _newest_compute(found)), now=now)
    for line in compute_lines(found.compute):
        print(line)
    if found.HasField("compute_next"):
        print("From the next start on:")
        for line in compute_lines(found.compute_next):
            print(f"  {line}")


@app.command()
def switch(
    session: SessionArgument,
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="TYPE=COUNT...", help="E.g. preprocess=1 class2d_streaming=1.")
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give up the hand-over under way.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Hand GPU slots over inside a session, at checkpoints, with nobody else in between."""
    from frazil.client import Client
    from frazil.model.errors import FrazilError

    if bool(jobs) == cancel:
        raise FrazilError("SWITCH_EMPTY", "Say which jobs are to run, e.g. preprocess=1 class2d_streaming=1, or --cancel.")
    wanted = {}
    for word in jobs or []:
        job_type, _, count = word.partition("=")
        if not job_type or not count.isdigit():
            raise FrazilError("SWITCH_INVALID", f"{word!r} must be a job type and a number, e.g. preprocess=1.")
        wanted[job_type] = int(count)
    with Client(scheduler, patience_seconds=2.0) as client:
        print(client.switch_plan(session, wanted).slot_switch.sentence)


@app.command("start-job")
def start_job(
    session: SessionArgument,
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="A streaming job, e.g. class2d_streaming.")],
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Start a streaming job; it begins by itself as soon as a slot is free."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.start_streaming_job(session, job_type)
    print(f"{job_type} is queued.")


@app.command("stop-job")
def stop_job(
    session: SessionArgument,
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="A streaming job, e.g. class2d_streaming.")],
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Stop a streaming job at a checkpoint and release its slot; started again, it goes on where it ended."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.stop_streaming_job(session, job_type)
    print(f"{job_type} stops at its next checkpoint.")


def _newest_compute(session: Session) -> ComputeResources:
    return session.compute_next if session.HasField("compute_next") else session.compute


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
    from frazil.cli.show import counts_sentence, job_word, print_json, state_word
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
        if found.slot_switch.sentence:
            print(f"  slots      {found.slot_switch.sentence}")
        for job in client.jobs(session, active_only=True):
            waits = client.explain_wait(job.job_id).sentence if job.state == Job.STATE_WAITING else job.progress
            print(f"  {job.job_type:<10} {job_word(job)} {waits}".rstrip())


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


@app.command("set")
def set_parameters(
    session: SessionArgument,
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Parameters by name; nothing after = unsets one.")
    ] = None,
    new_only: Annotated[bool, typer.Option("--new-only", help="Leave what is processed already as it is.")] = False,
    redo_from: Annotated[
        str, typer.Option("--redo-from", help="Also redo all from: motion, ctf, pick, threshold or extract.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be redone.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Change parameters; exposures are redone from the first stage that depends on what has changed, and no other.

    Without KEY=VALUE and --redo-from the parameters are shown.
    """
    from frazil.cli.assignments import assigned, parameter_lines
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        own = client.get_session(session).parameters
        if not assignments and not redo_from and not dry_run:
            print("\n".join(parameter_lines(own)))
            return
        wanted = assigned(own, assignments or [])
        reply = client.update_parameters(session, wanted, new_exposures_only=new_only, redo_from=redo_from, dry_run=dry_run)
    print(reply.sentence)


@app.command()
def retry(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Put the movies that failed back into the queue, e.g. after the gain reference was corrected."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        count = client.retry_quarantined(session)
    print(f"{count} movies are back in the queue." if count != 1 else "1 movie is back in the queue.")
