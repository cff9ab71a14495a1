"""One session's movie folder, swept again and again: which movies are new, whole, broken, changed or gone.

Nothing in the folder is ever written. What is kept here is a cache: a restart rebuilds it from the ledger and the next
sweep, and at worst a movie waits once more until it has stood still.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile
from frazil.api.session.v1.session_pb2 import ScanStatus, SessionParameters
from frazil.io.metadata import find_companion, fit_to_movie, read_metadata
from frazil.io.movies import Completeness, holds_events, structure_complete
from frazil.model.optics import MovieMetadata
from frazil_ingest import selection
from frazil_ingest.settling import FrameExpectation, Look, Patience, Sighting, Signature, Verdict, judge
from frazil_ingest.walk import FolderWalk, UnreachableError

_FULL_RESCAN_SECONDS = 60.0  # how often every registered movie is looked at for a change of its content
_FULL_RESCAN_SHARE = 20.0  # and at most 1/20 of the time goes into it
_VANISHED_MAX = 10  # more movies than this, and half of all, do not vanish one by one
_OMISSIONS_NAMED = 3
_NO_COMPANION = "none found"  # what frazil.io.metadata says under "companion"


class CheckStructure(Protocol):
    """Says whether a movie is whole; raises only what the file system raises."""

    def __call__(self, path: Path, *, opt_in: bool = False) -> Completeness:
        """Check one file."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieFound:
    """A movie to register."""

    file: MovieFile
    metadata: MovieMetadata
    gone_exposure_id: str = ""  # set when it was registered and is no longer there


@dataclass(slots=True)
class _Memory:
    """What is known of the files; all by relative path."""

    registered: dict[str, Signature] = field(default_factory=dict)
    ignored: dict[str, Signature] = field(default_factory=dict)
    settling: dict[str, Sighting] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)  # registered movies: sweeps that did not see them
    defective: set[str] = field(default_factory=set)  # registered so: looked at in every sweep
    doubtful: set[str] = field(default_factory=set)  # gone, or defective before a restart: judged anew when seen
    may_be_retried: set[str] = field(default_factory=set)  # gone after they had failed: asked about again and again
    exposure_ids: dict[str, str] = field(default_factory=dict)
    complained: set[str] = field(default_factory=set)


class SessionScanner:
    """Sweeps one session's folder. One thread at a time may call it; `clock` gives monotonic seconds."""

    def __init__(
        self,
        parameters: SessionParameters,
        clock: Callable[[], float],
        patience: Patience | None = None,
        check: CheckStructure = structure_complete,
    ) -> None:
        self._parameters = parameters
        self._check = check
        self._clock = clock
        self._patience = patience or Patience()
        self._root = Path(parameters.movie_folder)
        self._walk = FolderWalk(self._root)
        self._memory = _Memory()
        self._frames = FrameExpectation()
        self._companions_seen = False
        self._sweeps = 0
        self._changed_at = clock()
        self._full_at = clock()
        self._problem = ""
        self._foreign: dict[str, int] = {}
        self._skipped: dict[str, str] = {}  # files that the last sweep could not look at, and why
        self._log = structlog.get_logger()

    def restore(self, exposures: Iterable[Exposure]) -> None:
        """Take over what the ledger knows, after a restart or when a reply of it was lost."""
        memory = self._memory
        for exposure in exposures:
            file = exposure.file
            known = memory.registered.get(file.relative_path)
            if known == Signature(file.size_bytes, file.modified_ns):
                continue
            memory.registered[file.relative_path] = Signature(file.size_bytes, file.modified_ns)
            memory.exposure_ids[file.relative_path] = exposure.exposure_id
            if file.defect:
                memory.doubtful.add(file.relative_path)
            else:
                self._learn(file)
            self._companions_seen |= exposure.metadata.provenance.get("companion", _NO_COMPANION) != _NO_COMPANION

    def status(self) -> ScanStatus:
        """Return what to tell the scheduler."""
        memory = self._memory
        seen = len(memory.registered) + sum(1 for path in memory.settling if path not in memory.registered)
        problem = self._problem
        if not problem and not seen and self._foreign:
            counts = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(self._foreign.items()))
            problem = f"The movie folder holds only files of formats that this version does not read ({counts})."
        return ScanStatus(
            sweeps=self._sweeps,
            files_seen=seen,
            files_settling=len(memory.settling),
            seconds_since_change=max(0.0, self._clock() - self._changed_at),
            problem=problem,
            omission=self._omission(),
        )

    def _omission(self) -> str:
        """Say what is missing because it cannot be read; empty when nothing is."""
        folders = {f"the folder {path}": why for path, why in self._walk.unreadable.items()}
        left_out = [f"{_printable(path)} ({why.rstrip('.')})" for path, why in {**folders, **self._skipped}.items()]
        if not left_out:
            return ""
        listed = ", ".join(left_out[:_OMISSIONS_NAMED])
        more = f" and {len(left_out) - _OMISSIONS_NAMED:,} more" if len(left_out) > _OMISSIONS_NAMED else ""
        return f"Left out because it cannot be read: {listed}{more}. It is processed as soon as it can be read."

    def sweep(self) -> list[MovieFound]:
        """Look at the folder once and return the movies to register; call `registered` for those that were.

        While the folder cannot be read nothing changes but the status.
        """
        started = self._clock()
        full = started >= self._full_at
        try:
            self._skipped = {}
            paths = self._candidates(self._walk.files(fresh=full))
            if self._memory.registered and not paths:
                raise UnreachableError(f"The movie folder {self._root} is empty although it held movies: check its mount.")
            found = [movie for path in paths if (movie := self._look_guarded(path, full=full)) is not None]
        except UnreachableError as error:
            self._problem = str(error)
            return []
        self._problem = ""
        self._forget_vanished(paths)
        self._sweeps += 1
        if full:
            spent = self._clock() - started
            self._full_at = self._clock() + max(_FULL_RESCAN_SECONDS, _FULL_RESCAN_SHARE * spent)
        return found + self._vanished(self._memory.may_be_retried - paths.keys() if full else set())

    def registered(self, movie: MovieFound, exposure_id: str) -> None:
        """Remember that the scheduler has a movie."""
        path, memory = movie.file.relative_path, self._memory
        memory.settling.pop(path, None)
        memory.registered[path] = Signature(movie.file.size_bytes, movie.file.modified_ns)
        memory.exposure_ids[path] = exposure_id
        memory.defective.discard(path)
        memory.doubtful.discard(path)
        memory.may_be_retried.discard(path)
        if movie.gone_exposure_id:
            memory.doubtful.add(path)
        elif movie.file.defect:
            memory.defective.add(path)
        else:
            self._learn(movie.file)

    def may_be_retried(self, movie: MovieFound) -> None:
        """A movie that is gone has failed before: should a person have it tried again, it must be declared gone then."""
        self._memory.may_be_retried.add(movie.file.relative_path)

    def exposure_id(self, movie: MovieFound) -> str:
        """Return the exposure that a movie is registered as; empty when it is not."""
        return self._memory.exposure_ids.get(movie.file.relative_path, "")

    def _learn(self, file: MovieFile) -> None:
        if not holds_events(file.relative_path):
            self._frames.learn(file.frame_count)

    # ------------------------------------------------------------------------------------------------------- the folder
    def _candidates(self, paths: list[str]) -> dict[str, None]:
        """Keep what may be a movie; the session's own gain reference and defect file are none."""
        own = {self._parameters.gain_path, self._parameters.defects_path} - {""}
        kept: dict[str, None] = {}
        foreign: dict[str, int] = {}
        for path in paths:
            if selection.is_candidate(path, self._parameters.movie_glob, opt_in=self._parameters.read_bzip2):
                if not _encodable(path):
                    self._complain(path, "Its name is not valid UTF-8 and cannot be recorded; rename it.")
                elif str(self._root / path) not in own:
                    kept[path] = None
            elif selection.is_foreign(path):
                suffix = Path(path).suffix.lower()
                foreign[suffix] = foreign.get(suffix, 0) + 1
        self._foreign = foreign
        return kept

    def _forget_vanished(self, paths: Mapping[str, None]) -> None:
        """Drop files that are no longer there, and count how often registered ones were missed."""
        memory = self._memory
        for path in [path for path in memory.settling if path not in paths]:
            del memory.settling[path]
            self._changed_at = self._clock()
        hidden = tuple(f"{folder}/" for folder in self._walk.unreadable)
        known = {path for path in memory.registered.keys() - memory.doubtful if not path.startswith(hidden)}
        vanished = {path for path in known if path not in paths}
        if len(vanished) > max(_VANISHED_MAX, len(known) // 2):
            vanished = set()  # a mount or a mover took them: that says nothing about any one movie
        memory.missing = {path: memory.missing.get(path, 0) + 1 for path in vanished}

    def _vanished(self, again: Iterable[str]) -> list[MovieFound]:
        """Return the registered movies that two sweeps have missed, and those to ask about `again`, as defective."""
        found = []
        for path in [*(path for path, sweeps in self._memory.missing.items() if sweeps >= 2), *sorted(again)]:
            signature = self._memory.registered[path]
            sentence = f"{Path(path).name} was moved or deleted from the movie folder before it was processed."
            file = MovieFile(
                relative_path=path, size_bytes=signature.size_bytes, modified_ns=signature.modified_ns, defect=sentence
            )
            exposure_id = self._memory.exposure_ids[path]
            found.append(MovieFound(file=file, metadata=MovieMetadata(), gone_exposure_id=exposure_id))
        return found

    # --------------------------------------------------------------------------------------------------------- one file
    def _look_guarded(self, path: str, *, full: bool) -> MovieFound | None:
        """Look at one file; whatever is wrong with it never ends the sweep."""
        try:
            return self._look(path, full=full)
        except FileNotFoundError:
            return None  # a broken link, or gone between listing and looking
        except OSError as error:
            self._complain(path, f"It cannot be read: {error.strerror}.")
        except Exception as error:  # noqa: BLE001 a parser's bug must not hide the other movies
            self._complain(path, f"Looking at it failed: {error!r}.")
        return None

    def _look(self, path: str, *, full: bool) -> MovieFound | None:
        memory = self._memory
        settled = memory.ignored.get(path) or memory.registered.get(path)
        doubtful = path in memory.doubtful
        if settled is not None and not (full or doubtful or path in memory.settling or path in memory.defective):
            return None
        status = (self._root / path).stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        signature = Signature(status.st_size, status.st_mtime_ns)
        if signature == settled and not doubtful:
            memory.settling.pop(path, None)
            return None
        memory.ignored.pop(path, None)
        now = self._clock()
        sighting = memory.settling.get(path)
        if sighting is None:
            memory.settling[path] = Sighting(signature, now)
            self._changed_at = now
            return None
        if sighting.see(signature, now):
            self._changed_at = now
        if sighting.stable_seconds(now) < self._patience.settle_seconds:
            return None
        return self._judge(path, sighting, f"{status.st_dev}:{status.st_ino}", now)

    def _judge(self, path: str, sighting: Sighting, inode: str, now: float) -> MovieFound | None:
        movie = self._root / path
        completeness = self._completeness(movie)
        info = completeness.info
        look = Look(
            complete=completeness.complete,
            frame_count=info.frame_count if info else None,
            companion_missing=completeness.complete and self._companion_missing(movie),
            chosen_by_glob=bool(self._parameters.movie_glob),
            frames_vary=info is not None and info.rendering is not None,
        )
        verdict = judge(look, sighting.stable_seconds(now), self._patience, self._frames)
        if verdict is Verdict.WAIT:
            return None
        if verdict is Verdict.IGNORE:
            self._memory.ignored[path] = sighting.signature
            del self._memory.settling[path]
            return None
        defect = ""
        if verdict is Verdict.REGISTER_DEFECTIVE:
            defect = completeness.sentence if not look.complete else f"{movie.name} holds a single image, not a movie."
        after = movie.stat()
        if Signature(after.st_size, after.st_mtime_ns) != sighting.signature:
            return None  # it changed while it was looked at; the next sweep sees that
        file = MovieFile(
            relative_path=path,
            size_bytes=sighting.signature.size_bytes,
            modified_ns=sighting.signature.modified_ns,
            inode=inode,
            defect=defect,
        )
        if info is not None:
            file.frame_count, file.width_px, file.height_px = info.frame_count, info.width_px, info.height_px
        return MovieFound(file=file, metadata=self._metadata(movie, completeness))

    def _completeness(self, movie: Path) -> Completeness:
        try:
            return self._check(movie, opt_in=self._parameters.read_bzip2)
        except PermissionError:
            return Completeness(complete=False, sentence=f"{movie.name} may not be read: permission denied.")

    # ------------------------------------------------------------------------------------------------------- companions
    def _companion_missing(self, movie: Path) -> bool:
        """Say whether a movie should still wait for its XML or mdoc: others have one, or nobody said the pixel size."""
        if self._find_companion(movie):
            self._companions_seen = True
            return False
        return self._companions_seen or not self._parameters.HasField("pixel_size_angstrom")

    def _find_companion(self, movie: Path) -> bool:
        return find_companion(movie, metadata_root=self._metadata_root(), movie_root=self._root) is not None

    def _metadata(self, movie: Path, completeness: Completeness) -> MovieMetadata:
        """Return what the companion and the movie's own header say."""
        metadata = read_metadata(movie, metadata_root=self._metadata_root(), movie_root=self._root)
        return metadata if completeness.info is None else fit_to_movie(metadata, completeness.info)

    def _metadata_root(self) -> Path | None:
        return Path(self._parameters.metadata_folder) if self._parameters.metadata_folder else None

    def _complain(self, path: str, sentence: str) -> None:
        """Tell the scheduler, and once the log, what is wrong with a file."""
        self._skipped[path] = sentence
        if path not in self._memory.complained:
            self._memory.complained.add(path)
            self._log.warning("movie_skipped", file=repr(path), sentence=sentence)


def _printable(path: str) -> str:
    """Return a path as text that can be sent, whatever bytes its name is made of."""
    return path.encode("utf-8", errors="backslashreplace").decode()


def _encodable(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
