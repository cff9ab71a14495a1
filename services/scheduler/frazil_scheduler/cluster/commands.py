"""Commands of a batch system: run with a time limit, their faults told in one sentence."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass

from frazil.model.errors import ErrorKind, FrazilError

COMMAND_SECONDS = 30.0
_NOT_FOUND = 127  # what a shell returns for a program that is not there
_WORDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """The command's own words on what went wrong, in one line."""
        text = " ".join((self.stderr.strip() or self.stdout.strip()).split())
        return text[-_WORDS_MAX:] or f"exit code {self.code}"


async def run(command: str, *, seconds: float = COMMAND_SECONDS) -> Output:
    """Run a command line in a shell; what is put into it must be safe there (`templates.require_safe`).

    Raises FrazilError CLUSTER_UNAVAILABLE when it does not end in time or its program is not there.
    """
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await process.communicate()
    except TimeoutError:
        raise unavailable(f"{command.split()[0]} did not answer within {seconds:.0f} s; is the batch system up?") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    output = Output(process.returncode or 0, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if output.code == _NOT_FOUND:
        raise unavailable(f"{output.words}; install the batch system's commands, or name their folder in cluster_info.json.")
    return output


def unavailable(sentence: str) -> FrazilError:
    """Return the error of a cluster that does not answer."""
    return FrazilError("CLUSTER_UNAVAILABLE", sentence, kind=ErrorKind.UNAVAILABLE)


def refused(sentence: str) -> FrazilError:
    """Return the error of a cluster that does not take a job."""
    return FrazilError("CLUSTER_REFUSED", sentence, kind=ErrorKind.EXHAUSTED)
