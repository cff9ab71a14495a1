"""The command line: `frazil …`. Every error is one sentence and an exit code; nothing is imported before it is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    try:
        from frazil.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        print("frazil: the command line is not installed; install it with: pip install 'frazil[cli,compute]'", file=sys.stderr)
        return 1
    from frazil.model.errors import ErrorKind, FrazilError

    try:
        app(args=None if arguments is None else list(arguments), prog_name="frazil")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except FrazilError as error:
        sentence = error.sentence
        if error.reason == "SCHEDULER_UNREACHABLE":
            sentence = f"No scheduler answers ({sentence}): start one with `frazil up`, or name another with --scheduler."
        print(f"frazil: {sentence}", file=sys.stderr)
        return 2 if error.kind is ErrorKind.INVALID else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `frazil … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # the last edge: a person gets a sentence, never a traceback
        if os.environ.get("FRAZIL_DEBUG"):
            raise
        name = type(error).__name__
        print(f"frazil: unexpected {name}: {error}. Set FRAZIL_DEBUG=1 to see where, and report it.", file=sys.stderr)
        return 1
    return 0
