"""The structure of movies that nobody vouches for, checked in a process of its own with little memory and time.

Whatever a file makes of the parsers, it is the checking process that pays for it: its memory, computing time and writing are
limited, and it is replaced when it dies, when it does not answer, and now and then. `python -m frazil.io.movie_check` is that
process: a line of JSON in for every movie, a line out. No numpy.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from frazil.io.movies import Completeness, MovieInfo, Rendering, structure_complete
from frazil.model.errors import ErrorKind, FrazilError

MEMORY_MAX_BYTES = 2 * 2**30
COMPUTING_MAX_SECONDS = 10
ANSWER_MAX_SECONDS = 60.0
FILES_PER_PROCESS = 500


class MovieChecker:
    """Checks movies one after the other; a context manager. Not for several threads at once."""

    def __init__(self, answer_seconds: float = ANSWER_MAX_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._checked = 0

    def __enter__(self) -> MovieChecker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def check(self, path: Path, *, opt_in: bool = False) -> Completeness:
        """Say whether a movie is whole, as `frazil.io.movies.structure_complete` does.

        A file that takes more memory or computing than any movie's structure is answered as not complete. Raises OSError for
        errors of the file system, one that does not answer included, and FrazilError for a parser that broke.
        """
        if self._checked >= FILES_PER_PROCESS:
            self.close()
        process = self._process or self._start()
        self._checked += 1
        try:
            answer = self._ask(process, {"path": str(path), "opt_in": opt_in})
        except BaseException:
            self.close()
            raise
        if answer is None:
            ended = process.wait()
            self.close()
            return Completeness(complete=False, sentence=_overstrained(path.name, ended))
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]), str(path))
        if "broke" in answer:
            raise FrazilError(
                "MOVIE_CHECK_BROKE", f"Checking {path.name} broke: {answer['broke']}.", kind=ErrorKind.UNAVAILABLE
            )
        return _completeness(answer)

    def close(self) -> None:
        """End the process; the next check starts another."""
        process, self._process, self._checked = self._process, None, 0
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "frazil.io.movie_check"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: dict[str, Any]) -> dict[str, Any] | None:
        """Send a question and return the answer; None when the process died over it. Raises TimeoutError."""
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 both are pipes
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
        except BrokenPipeError:
            return None
        line = b""
        answers = select.poll()
        answers.register(process.stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            if not answers.poll(self._answer_seconds * 1e3):
                raise TimeoutError(f"no answer in {self._answer_seconds:.0f} s")
            piece = process.stdout.read(65_536)
            if not piece:
                return None
            line += piece
        answer: dict[str, Any] = json.loads(line)
        return answer


def _overstrained(name: str, ended: int) -> str:
    if ended == -signal.SIGXCPU:
        return f"{name} is not to be believed: looking at its structure took more than {COMPUTING_MAX_SECONDS} s of computing."
    return f"{name} is not to be believed: looking at its structure ended the process that did so ({ended})."


def _completeness(answer: dict[str, Any]) -> Completeness:
    info = answer["info"]
    if info is not None:
        rendering = info.pop("rendering")
        info = MovieInfo(**info, rendering=Rendering(**rendering) if rendering is not None else None)
    return Completeness(complete=answer["complete"], sentence=answer["sentence"], info=info)


# --------------------------------------------------------------------------------------------------- the checking process
def answer_to(question: dict[str, Any]) -> dict[str, Any]:
    """Check one movie and return the answer as it is sent."""
    path = Path(question["path"])
    try:
        return dataclasses.asdict(structure_complete(path, opt_in=question["opt_in"]))
    except OSError as error:
        return {"errno": error.errno or 0}
    except MemoryError:
        sentence = f"{path.name} is not to be believed: its structure takes more memory than any movie's."
        return {"complete": False, "sentence": sentence, "info": None}
    except Exception as error:  # noqa: BLE001 the asking process says it and goes on
        return {"broke": f"{type(error).__name__}: {error}"}


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, hard))


def _serve() -> None:
    """Answer line by line until the asking process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the asking process that is told to stop
    for kind, value in ((resource.RLIMIT_AS, MEMORY_MAX_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        _limit(kind, value)
    for line in sys.stdin.buffer:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + COMPUTING_MAX_SECONDS)
        sys.stdout.buffer.write(json.dumps(answer_to(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
