"""`frazil class …` and `frazil templates …`: 2D classes and what the picker looks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from frazil.cli.options import SCHEDULER_DEFAULT, JsonOption, SchedulerOption, SessionArgument

if TYPE_CHECKING:
    from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverage, ClassAverages, ClassSelection, Template

classes = typer.Typer(help="2D classes: which are selected, and beginning anew.", no_args_is_help=True)
templates = typer.Typer(help="Templates that jobs made for the picker.", no_args_is_help=True)

Numbers = Annotated[list[int] | None, typer.Argument(metavar="CLASS...", help="Class numbers.")]


@classes.command("list")
def list_classes(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """List a session's 2D classes, the biggest first, and which are selected."""
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.class_averages(session)
    if as_json:
        print_json([] if found is None else [found])
        return
    by_size = [] if found is None else sorted(found.classes, key=lambda one: -one.particle_count)
    columns = ("class", "particles", "resolution", "classes a particle fits", "rank", "selected")
    print_table(columns, (_class_row(one) for one in by_size), empty="There are no class averages yet.")
    if found is not None:
        print(_selection_sentence(found))


@classes.command("select")
def select_classes(
    session: SessionArgument,
    numbers: Numbers = None,
    particles_min: Annotated[int | None, typer.Option("--particles-min", min=0, help="Least particles (0: any).")] = None,
    resolution_max: Annotated[
        float | None, typer.Option("--resolution-max", min=0, help="Coarsest resolution, Å (0: any).")
    ] = None,
    ess_max: Annotated[
        float | None, typer.Option("--ess-max", min=0, help="Most classes that a particle may fit, effectively (0: any).")
    ] = None,
    ranking: Annotated[bool | None, typer.Option("--ranking/--no-ranking", help="Exclude what is ranked as junk.")] = None,
    release_all: Annotated[bool, typer.Option("--automatic", help="Forget what was said of single classes.")] = False,
    all_particles: Annotated[bool, typer.Option("--all-particles", help="3D takes every particle after all.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Select classes by number, or by thresholds; from then on 3D takes only particles of selected classes."""
    from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassThresholds
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        thresholds: ClassThresholds | None = None
        if not (particles_min is None and resolution_max is None and ess_max is None and ranking is None):
            found = client.class_averages(session)
            before = ClassThresholds() if found is None else found.selection.thresholds
            thresholds = ClassThresholds(
                particle_count_min=before.particle_count_min if particles_min is None else particles_min,
                resolution_max_angstrom=before.resolution_max_angstrom if resolution_max is None else resolution_max,
                effective_classes_max=before.effective_classes_max if ess_max is None else ess_max,
                ignore_ranking=before.ignore_ranking if ranking is None else not ranking,
            )
        reply = client.select_classes(
            session, select=numbers or [], release_all=release_all, thresholds=thresholds, all_particles=all_particles
        )
    _print_reply(reply.selection, reply.class_averages if reply.HasField("class_averages") else None)


@classes.command("exclude")
def exclude_classes(session: SessionArgument, numbers: Numbers = None, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Exclude classes by number, whatever thresholds and ranking say."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        reply = client.select_classes(session, exclude=_required(numbers))
    _print_reply(reply.selection, reply.class_averages)


@classes.command("release")
def release_classes(session: SessionArgument, numbers: Numbers = None, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Let thresholds and ranking decide on classes again."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        reply = client.select_classes(session, release=_required(numbers))
    _print_reply(reply.selection, reply.class_averages)


@classes.command("reinitialise")
def reinitialise(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Begin 2D classification anew with the session's present parameters."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.reset_classes(session)
    print("2D classification begins anew; the present classes are shown until there are new ones.")


@classes.command("clear")
def clear(session: SessionArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Stop 2D classification and take its classes away; `frazil session start-job` begins it anew."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.reset_classes(session, clear=True)
    print(f"The classes are gone; begin anew with: frazil session start-job {session} class2d_streaming")


@templates.command("list")
def list_templates(
    session: Annotated[str, typer.Argument(metavar="[SESSION]", help="Name or identity; default: all sessions.")] = "",
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List the templates that jobs made, the newest first."""
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.templates(session)
    if as_json:
        print_json(found)
        return
    rows = (
        (one.job_id, one.source, str(len(one.templates)), _numbers(one.templates), f"{one.pixel_size_angstrom:.2f} Å")
        for one in found
    )
    empty = "There are no templates yet: make them by `frazil job submit SESSION create_templates` or `class2d_templates`."
    print_table(("job", "from", "templates", "suggested", "pixel"), rows, empty=empty)


@templates.command("choose")
def choose_templates(
    session: SessionArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job that made the templates.")],
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Templates (default: those that the job suggests).")
    ] = None,
    new_only: Annotated[bool, typer.Option("--new-only", help="Leave what is picked already as it is.")] = False,
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Pick a session's micrographs with templates; what is picked already is picked anew."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.choose_templates(session, job, numbers or [], new_exposures_only=new_only)
    count = len(found.parameters.picker_template_numbers)
    print(f"Session {found.name} picks with {count} template{'' if count == 1 else 's'} of {job}.")


def _required(numbers: list[int] | None) -> list[int]:
    from frazil.model.errors import FrazilError

    if not numbers:
        raise FrazilError("CLASS_MISSING", "Name classes by number; `frazil class list` shows them.")
    return numbers


def _class_row(one: ClassAverage) -> tuple[str, ...]:
    resolution = f"{one.resolution_angstrom:.1f} Å" if one.HasField("resolution_angstrom") else "-"
    rank = f"{one.quality:.2f}" + (" junk" if one.junk else "")
    return (
        str(one.class_number),
        f"{one.particle_count:,}",
        resolution,
        f"{one.effective_classes:.2f}",
        rank,
        "yes" if one.selected else "",
    )


def _print_reply(selection: ClassSelection, averages: ClassAverages | None) -> None:
    if averages is None or not averages.classes:
        print("Noted; it counts as soon as there are class averages.")
    else:
        print(_selection_sentence(averages))
    if selection.all_particles:
        print("3D takes every particle.")


def _selection_sentence(averages: ClassAverages) -> str:
    count = sum(one.selected for one in averages.classes)
    words = f"{count} of {len(averages.classes)} classes are selected, with {averages.selected_particle_count:,} of "
    used = averages.selection.revision and not averages.selection.all_particles
    end = "" if used else " 3D takes every particle until `frazil class select` is called."
    return f"{words}{averages.particle_count:,} particles.{end}"


def _numbers(found: Sequence[Template]) -> str:
    chosen = [one.number for one in found if one.selected]
    return "all" if len(chosen) == len(found) else ", ".join(map(str, chosen)) or "none"
