"""A note that a run ended with every result: with it, the same command again over an unchanged folder starts nothing.

The note is a cache, no ledger: whatever does not agree with it (a movie more, a result that is gone, another version), or its
absence, has the run take the long way, which finds out by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from frazil import __version__
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io.atomic import write_text

NOTE = "finished.json"

Files = dict[str, tuple[int, int]]  # relative path: bytes, modification time in ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a finished run had seen, what it had written, and the summary it printed."""

    version: str
    parameters: str
    movies: Files
    results: Files
    summary: list[str]


def look_at(folder: Path, paths: Iterable[Path]) -> Files:
    """Return size and time of files below a folder; what is gone meanwhile is left out."""
    found = {}
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def write_note(
    state: Path,
    parameters: SessionParameters,
    *,
    seen: Files,
    exposures: Iterable[Exposure],
    results: Files,
    summary: Iterable[str],
) -> None:
    """Note in the state folder that a run is finished.

    Parameters
    ----------
    state: folder of the run's state.
    parameters: of the run.
    seen: files that looked like movies when the run began; ingest has judged every one of them since.
    exposures: what ingest has registered.
    results: files of the output.
    summary: lines to print again.
    """
    registered = {one.file.relative_path: (one.file.size_bytes, one.file.modified_ns) for one in exposures}
    note = Finished(
        version=__version__,
        parameters=_text(parameters),
        movies=seen | registered,
        results=results,
        summary=list(summary),
    )
    write_text(state / NOTE, json.dumps(asdict(note)))


def forget_note(state: Path) -> None:
    """Remove the note: a run begins."""
    (state / NOTE).unlink(missing_ok=True)


def summary_of_finished(state: Path, parameters: SessionParameters, *, movies: Files, output: Path) -> list[str] | None:
    """Return the summary of the run that has done everything there is to do; None when there is something to do.

    Parameters
    ----------
    state: folder of the run's state.
    parameters: of now.
    movies: files that look like movies now.
    output: folder of the results, each of which must be as it was written.
    """
    try:
        note = Finished(**json.loads((state / NOTE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if note.version != __version__ or note.parameters != _text(parameters):
        return None
    if not movies or any(tuple(note.movies.get(path, ())) != signature for path, signature in movies.items()):
        return None
    results = look_at(output, (output / path for path in note.results))
    return note.summary if results == {path: tuple(one) for path, one in note.results.items()} else None


def _text(parameters: SessionParameters) -> str:
    return parameters.SerializeToString(deterministic=True).hex()
