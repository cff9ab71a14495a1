"""The commands of `frazil`. Only typer is imported here; each command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from frazil import __version__
from frazil.cli import classes, exposure, profile, resources, session
from frazil.cli.demo import demo
from frazil.cli.doctor import doctor
from frazil.cli.run import run
from frazil.cli.simulate import simulate
from frazil.cli.up import up

app = typer.Typer(
    name="frazil",
    help="Live cryo-EM processing: from a growing folder of movies to micrographs, particles and 2D classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"frazil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Live cryo-EM processing: from a growing folder of movies to micrographs, particles and 2D classes."""


_START = "Start here"
_CONTROL = "Drive a running Frazil"
app.command(rich_help_panel=_START)(demo)
app.command(rich_help_panel=_START)(run)
app.command(rich_help_panel=_START)(up)
app.command(rich_help_panel=_START)(simulate)
app.command(rich_help_panel=_START)(doctor)
app.add_typer(session.app, name="session", rich_help_panel=_CONTROL)
app.add_typer(exposure.app, name="exposure", rich_help_panel=_CONTROL)
app.add_typer(profile.app, name="profile", rich_help_panel=_CONTROL)
app.command(name="export", rich_help_panel=_CONTROL)(session.export)
app.add_typer(classes.classes, name="class", rich_help_panel=_CONTROL)
app.add_typer(classes.templates, name="templates", rich_help_panel=_CONTROL)
app.add_typer(resources.lanes, name="lane", rich_help_panel=_CONTROL)
app.add_typer(resources.nodes, name="node", rich_help_panel=_CONTROL)
app.add_typer(resources.gpus, name="gpu", rich_help_panel=_CONTROL)
app.add_typer(resources.jobs, name="job", rich_help_panel=_CONTROL)
