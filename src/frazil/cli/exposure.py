"""`frazil exposure …`: which exposures are used, and what other parameters would make of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from frazil.cli.options import SCHEDULER_DEFAULT, JsonOption, SchedulerOption, SessionArgument

if TYPE_CHECKING:
    from pathlib import Path

    from frazil.api.exposure.v1.exposure_pb2 import Exposure, Override
    from frazil.api.session.v1.session_pb2 import AttributeThreshold, Session
    from frazil.client import Client

app = typer.Typer(help="Exposures: list, accept, reject, thresholds on their attributes.", no_args_is_help=True)

ExposuresArgument = Annotated[
    list[str], typer.Argument(metavar="EXPOSURE…", help="Numbers (12, 20-25), identities or movie files.")
]
_NUMBERS_MAX = 100_000


@app.command("list")
def list_exposures(
    session: SessionArgument,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only those whose particles are not used.")] = False,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", help="Columns to show; may be repeated (see `thresholds --list`).")
    ] = None,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List a session's exposures with their attributes, and why some are rejected."""
    from frazil.cli.show import print_json, print_table, state_word
    from frazil.client import Client
    from frazil.rpc import attributes

    columns = attribute or ["ctf_fit_resolution_angstrom", "defocus_mean_angstrom", "motion_total_angstrom", "particle_count"]
    shown = [attributes.find(name) for name in columns]
    with Client(scheduler, patience_seconds=2.0) as client:
        found = [one for one in client.exposures(session) if one.rejected or not rejected]
    if as_json:
        print_json(found)
        return

    def row(one: Exposure) -> list[str]:
        values = attributes.values(one)
        cells = (_number(values[name]) for name in columns)
        return [str(one.number), one.file.relative_path, state_word(one), *cells, one.rejected or one.failure]

    head = [f"{one.title} [{one.unit}]" if one.unit else one.title for one in shown]
    print_table(("number", "movie", "state", *head, "why not used"), map(row, found), empty="There are no such exposures.")


@app.command()
def reject(session: SessionArgument, exposures: ExposuresArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Reject exposures by hand: their particles leave the streaming reconstructions. This wins over thresholds."""
    from frazil.api.exposure.v1.exposure_pb2 import OVERRIDE_REJECT

    _curate(session, exposures, OVERRIDE_REJECT, scheduler)


@app.command()
def accept(
    session: SessionArgument,
    exposures: ExposuresArgument,
    by_thresholds: Annotated[
        bool, typer.Option("--by-thresholds", help="Take a word by hand back: thresholds decide again.")
    ] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Accept exposures by hand, whatever thresholds say."""
    from frazil.api.exposure.v1.exposure_pb2 import OVERRIDE_ACCEPT, OVERRIDE_UNSPECIFIED

    _curate(session, exposures, OVERRIDE_UNSPECIFIED if by_thresholds else OVERRIDE_ACCEPT, scheduler)


@app.command()
def thresholds(
    session: SessionArgument,
    intervals: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ATTRIBUTE=MIN:MAX]…", help="Either end may be empty; ATTRIBUTE= takes one away."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take all away first.")] = False,
    list_known: Annotated[bool, typer.Option("--list", help="List the attributes there are.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Show or set the intervals that attributes must lie in; what lies outside is not used, and nothing is computed again."""
    from frazil.cli.show import print_table
    from frazil.client import Client
    from frazil.rpc.attributes import ATTRIBUTES

    if list_known:
        print_table(("attribute", "what", "unit"), ((one.name, one.title, one.unit) for one in ATTRIBUTES), empty="")
        return
    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.get_session(session)
        if intervals or clear:
            found = client.set_thresholds(session, changed_thresholds([] if clear else found.thresholds, intervals or []))
    print("\n".join(_threshold_lines(found)))


@app.command("test")
def try_parameters(
    session: SessionArgument,
    exposure: Annotated[str, typer.Argument(metavar="EXPOSURE", help="Number, identity or movie file.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of a parameter; may be repeated (see `session set`).")
    ] = None,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Process one exposure with other parameters, on a slot of the auxiliary lane, beside its session; compare the results."""
    from pathlib import Path

    from frazil.cli.assignments import assigned
    from frazil.cli.show import print_table
    from frazil.client import Client
    from frazil.rpc import attributes

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.get_session(session)
        (before,) = chosen(client, session, [exposure])
        started = client.test_exposure(before.exposure_id, assigned(found.parameters, assignments or []))
        _wait_for(client, started.job_id)
    folder = Path(found.folder) / started.folder
    print(f"What it leaves is in {folder}")
    after = tested(before, folder)
    if after is None:
        return  # on another machine's disk
    pairs = ((attributes.values(before)[one.name], attributes.values(after)[one.name], one) for one in attributes.ATTRIBUTES)
    rows = [(one.title, _number(old), _number(new), one.unit) for old, new, one in pairs if one.unit != attributes.TIME_UNIT]
    print_table(("attribute", "now", "test", "unit"), rows, empty="")


def tested(exposure: Exposure, folder: Path) -> Exposure | None:
    """Return an exposure with the result of a test in the place of its own; None when the folder is not on this machine."""
    from google.protobuf.json_format import Parse

    from frazil.api.exposure.v1.exposure_pb2 import ExposureResult

    file = folder / "result.json"
    if not file.is_file():
        return None
    after = type(exposure)()
    after.CopyFrom(exposure)
    after.result.CopyFrom(Parse(file.read_text(encoding="utf-8"), ExposureResult()))
    return after


def _wait_for(client: Client, job_id: str) -> None:
    """Wait until a job is over, saying what it does or waits for. Raises FrazilError JOB_FAILED with its reason."""
    import time

    from frazil.api.scheduler.v1.scheduler_pb2 import Job
    from frazil.model.errors import FrazilError

    said = ""
    while (job := client.get_job(job_id)).state not in (Job.STATE_DONE, Job.STATE_FAILED, Job.STATE_CANCELLED):
        sentence = client.explain_wait(job_id).sentence if job.state == Job.STATE_WAITING else job.progress
        if sentence and sentence != said:
            print(sentence, flush=True)
            said = sentence
        time.sleep(1.0)
    if job.state != Job.STATE_DONE:
        raise FrazilError("JOB_FAILED", job.reason or "The test was cancelled.")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def changed_thresholds(now: Sequence[AttributeThreshold], intervals: Sequence[str]) -> list[AttributeThreshold]:
    """Return thresholds with what `ATTRIBUTE=MIN:MAX`s say. Raises FrazilError THRESHOLD_INVALID."""
    from frazil.api.session.v1.session_pb2 import AttributeThreshold
    from frazil.model.errors import FrazilError

    by_name = {one.attribute: one for one in now}
    for text in intervals:
        name, equals, interval = text.partition("=")
        low, colon, high = interval.partition(":")
        by_name.pop(name, None)
        if equals and not interval:
            continue
        try:
            ends = {end: float(value) for end, value in (("minimum", low), ("maximum", high)) if value.strip()}
        except ValueError:
            ends = {}
        if not colon or not ends:
            raise FrazilError("THRESHOLD_INVALID", f"{text!r} is no interval: write ATTRIBUTE=MIN:MAX, e.g. ctf_score=0.2: .")
        by_name[name] = AttributeThreshold(attribute=name, **ends)
    return list(by_name.values())


def _threshold_lines(session: Session) -> Iterator[str]:
    from frazil.rpc.attributes import find

    for one in session.thresholds:
        low = f"{one.minimum:g}" if one.HasField("minimum") else ""
        high = f"{one.maximum:g}" if one.HasField("maximum") else ""
        yield f"{one.attribute}={low}:{high}  {find(one.attribute).title} {find(one.attribute).unit}".rstrip()
    rejected = session.counts.rejected
    used = session.counts.done - rejected
    yield f"{used:,} exposures used, {rejected:,} rejected, {session.counts.particles:,} particles."


def chosen(client: Client, session: str, names: Sequence[str]) -> list[Exposure]:
    """Return the exposures that numbers, ranges of numbers, identities or movie files name.

    Raises FrazilError EXPOSURE_UNKNOWN for the first that names none.
    """
    from frazil.model.errors import ErrorKind, FrazilError

    every = list(client.exposures(session))
    by_name: dict[str, Exposure] = {}
    for one in every:
        by_name |= {str(one.number): one, one.exposure_id: one, one.file.relative_path: one}
    found: dict[str, Exposure] = {}
    for name in names:
        wanted = _range(name) or [name]
        for each in wanted:
            if each not in by_name:
                sentence = f"Session {session} has no exposure {each!r}: give a number, an identity or a movie's file."
                raise FrazilError("EXPOSURE_UNKNOWN", sentence, kind=ErrorKind.NOT_FOUND)
            found[by_name[each].exposure_id] = by_name[each]
    return list(found.values())


def _range(name: str) -> list[str]:
    """Return the numbers of "20-25"; none for what is no range."""
    first, dash, last = name.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < _NUMBERS_MAX):
        return []
    return [str(number) for number in range(int(first), int(last) + 1)]


def _curate(session: str, names: Sequence[str], word: Override.ValueType, scheduler: str) -> None:
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        ids = [one.exposure_id for one in chosen(client, session, names)]
        changed = [one for first in range(0, len(ids), 1000) for one in client.curate(session, ids[first : first + 1000], word)]
        found = client.get_session(session)
    used = sum(not one.rejected for one in changed)
    print(f"{used} used, {len(changed) - used} rejected; the session has {found.counts.particles:,} particles.")
