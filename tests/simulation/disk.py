"""What outlives processes: movies in real folders with virtual time stamps, checkpoints, and how full the disks are."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from frazil.io.movies import Completeness, MovieInfo

_AWAY = ".away"
INFO = MovieInfo(frame_count=4, height_px=64, width_px=64, dtype="uint8", pixel_size_angstrom=None, format="TIFF")


@dataclass(frozen=True, slots=True)
class Movie:
    """One content of one file. Its nature is what a worker meets: good, segfault, large, unreadable, truncated."""

    size_bytes: int
    modified_ns: int
    particles: int
    nature: str = "good"
    whole: bool = True


@dataclass
class Disk:
    """The file systems that the facility shares."""

    folder: Path
    wall_ns: Callable[[], int]
    movies: dict[Path, Movie] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, int]] = field(default_factory=dict)
    finished: dict[str, dict[str, int]] = field(default_factory=dict)  # what streaming jobs had when they ended, by job
    full: set[str] = field(default_factory=set)  # sessions whose disk is
    away: set[str] = field(default_factory=set)  # sessions whose movies' file system is not mounted

    def session_folder(self, session: str) -> Path:
        path = self.folder / session
        path.mkdir(exist_ok=True)
        return path

    def write(self, path: Path, size_bytes: int, particles: int, *, nature: str = "good", whole: bool = True) -> None:
        """Give a file its content up to now."""
        now = self.wall_ns()
        place = self._place(path.parent) / path.name
        place.write_bytes(b"m" * size_bytes)
        os.utime(place, ns=(now, now))
        self.movies[path] = Movie(size_bytes, now, particles, nature, whole)
        self._touch(place.parent)

    def remove(self, path: Path) -> None:
        """Take a file away."""
        place = self._place(path.parent) / path.name
        place.unlink()
        del self.movies[path]
        self._touch(place.parent)

    def unmount(self, session: str, *, leaves_folder: bool) -> None:
        """Take the file system with a session's movies away: its folder is empty, or is not there."""
        if session not in self.away:
            folder = self.folder / session
            folder.rename(self.folder / f"{session}{_AWAY}")
            self.away.add(session)
            if leaves_folder:
                folder.mkdir()
                self._touch(folder)

    def mount(self, session: str) -> None:
        """Bring it back as it was."""
        if session in self.away:
            folder = self.folder / session
            if folder.exists():
                folder.rmdir()
            (self.folder / f"{session}{_AWAY}").rename(folder)
            self.away.remove(session)

    def _place(self, folder: Path) -> Path:
        return folder.with_name(folder.name + _AWAY) if folder.name in self.away else folder

    def _touch(self, folder: Path) -> None:
        """A folder's own time stamp is virtual too: no two changes share one."""
        now = self.wall_ns()
        os.utime(folder, ns=(now, now))

    def look(self, session: str, relative_path: str) -> Movie | None:
        """Return what a file holds now."""
        return None if session in self.away else self.movies.get(self.folder / session / relative_path)

    def check(self, path: Path, *, opt_in: bool = False) -> Completeness:
        """Say whether a movie is whole, as a look at its structure does."""
        movie = self.movies[path]
        return Completeness(complete=movie.whole, sentence="" if movie.whole else "It is truncated.", info=INFO)

    def is_full(self, session: str) -> bool:
        return session in self.full
