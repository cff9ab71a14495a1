"""`frazil profile …`: named parameters and compute resources for many sessions."""

from __future__ import annotations

from typing import Annotated

import typer

from frazil.cli.options import SCHEDULER_DEFAULT, JsonOption, SchedulerOption

app = typer.Typer(help="Configuration profiles: saved parameters for many sessions.", no_args_is_help=True)

ProfileArgument = Annotated[str, typer.Argument(metavar="PROFILE", help="Name of a configuration profile.")]
SessionOption = Annotated[str, typer.Option("--session", help="Name or identity of a session.")]


@app.command("list")
def list_profiles(scheduler: SchedulerOption = SCHEDULER_DEFAULT, as_json: JsonOption = False) -> None:
    """List configuration profiles."""
    from frazil.cli.compute import compute_lines
    from frazil.cli.show import print_json, print_table
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        found = client.profiles()
    if as_json:
        print_json(found)
        return
    rows = ((one.name, one.description, next(compute_lines(one.compute))) for one in found)
    print_table(("profile", "what for", "compute"), rows, empty="No configuration profile is saved yet.")


@app.command()
def save(
    profile: ProfileArgument,
    session: SessionOption,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    scheduler: SchedulerOption = SCHEDULER_DEFAULT,
) -> None:
    """Save a session's parameters and compute resources under a name; the movie folder is not part of it."""
    from frazil.api.session.v1.session_pb2 import Profile
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.save_profile(Profile(name=profile, description=description), session=session)
    print(f"Profile {profile} is saved.")


@app.command()
def apply(profile: ProfileArgument, session: SessionOption, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Give a session that is not running the values of a profile."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.apply_profile(profile, session)
    print(f"Session {session} has the values of profile {profile}.")


@app.command()
def delete(profile: ProfileArgument, scheduler: SchedulerOption = SCHEDULER_DEFAULT) -> None:
    """Delete a profile; sessions it was applied to keep what they have."""
    from frazil.client import Client

    with Client(scheduler, patience_seconds=2.0) as client:
        client.delete_profile(profile)
    print(f"Profile {profile} is deleted.")
