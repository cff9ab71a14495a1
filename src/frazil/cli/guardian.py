"""The guardian of a supervisor: stops the services in order when their supervisor was killed and could not do so itself.

It waits for the end of its standard input, a pipe whose other end only the supervisor holds: the kernel closes that end
however the supervisor dies. After an orderly stop nothing is left to do. (A death signal of the kernel would not do: it reaches
every child at once, workers would lose the scheduler before they could hand in what they have.)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from frazil.cli import processes

NAME = "guardian"


@contextlib.contextmanager
def guarded(data_dir: Path, notes: Path, log: Path, *, last: str) -> Iterator[None]:
    """Run a guardian of a data folder beside the block; `last` names the service that is to be stopped last."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "frazil.cli.guardian", str(data_dir), str(notes), last]
    with log.open("ab") as output:
        guardian = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the supervisor alone
        )
    record = processes.record_of(NAME, guardian.pid)
    if record is not None:
        processes.write_record(notes, record)
    try:
        yield
    finally:
        guardian.communicate()
        processes.forget_record(notes, NAME)


def main(arguments: list[str]) -> None:
    """Wait for the supervisor's end, then stop what it left of `data_dir`, known by the notes in a folder."""
    data_dir, notes, last = Path(arguments[0]), Path(arguments[1]), arguments[2]
    while os.read(sys.stdin.fileno(), 4096):
        pass
    left = [record for record in processes.find_left(notes, data_dir) if record.name != NAME]
    if left:
        print(f"The supervisor of {data_dir} is gone; stopping {len(left)} process(es).", flush=True)
        processes.stop_left(left, last=last)


if __name__ == "__main__":
    main(sys.argv[1:])
