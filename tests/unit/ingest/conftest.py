"""A clock that is turned by hand, and movies made of nothing but a header and bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil_ingest.scanner import MovieFound, SessionScanner


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def mrc_movie(frames: int = 3, side: int = 32) -> bytes:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, side, side, frames, 0)
    struct.pack_into("<3i", header, 28, side, side, frames)
    struct.pack_into("<3f", header, 40, 1.25 * side, 1.25 * side, 1.25 * frames)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:216] = b"MAP DD\x00\x00"
    return bytes(header) + bytes(range(1, 129)) * (frames * side * side // 128)


class Bench:
    """A folder, its scanner, and the clock; `run` sweeps every second and registers what is found."""

    def __init__(self, root: Path, **parameters: object) -> None:
        self.root = root
        self.clock = Clock()
        self.parameters = SessionParameters(movie_folder=str(root), **{"pixel_size_angstrom": 1.0, **parameters})  # type: ignore[arg-type]
        self.scanner = SessionScanner(self.parameters, self.clock)
        self.found: list[MovieFound] = []

    def restart(self) -> None:
        self.scanner = SessionScanner(self.parameters, self.clock)

    def run(self, seconds: float, every_second: Callable[[], None] = lambda: None) -> list[MovieFound]:
        new: list[MovieFound] = []
        for _ in range(int(seconds)):
            every_second()
            for movie in self.scanner.sweep():
                self.scanner.registered(movie, f"id of {movie.file.relative_path}")
                new.append(movie)
            self.clock.now += 1.0
        self.found += new
        return new

    def names(self) -> list[str]:
        return [movie.file.relative_path for movie in self.found]


@pytest.fixture
def movie_bytes() -> Callable[..., bytes]:
    return mrc_movie


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(**parameters: object) -> Bench:
        root = tmp_path / "movies"
        root.mkdir(exist_ok=True)
        return Bench(root, **parameters)

    return make
