"""`frazil simulate`: a simulated microscope writes a session with known truth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from frazil.simulator import BadMovie, DeliveredMovie
    from frazil.simulator.parameters import BadKind


class Layout(StrEnum):
    """Whose folders and companion files."""

    EPU = "epu"
    SERIALEM = "serialem"


class Format(StrEnum):
    """Of the movies."""

    TIFF = "tiff"
    MRC = "mrc"
    MRC_4BIT = "mrc-4bit"
    EER = "eer"


def simulate(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The microscope's folder to write.")],
    movies: Annotated[int, typer.Option("--movies", min=1, help="Number of movies.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal movies.")] = 1,
    particle: Annotated[str, typer.Option("--particle", help="Built-in particle, or a .pdb or .npz file.")] = "cct",
    particles_per_movie: Annotated[int, typer.Option("--particles-per-movie", min=0, help="Particles.")] = 60,
    width: Annotated[int, typer.Option("--width", min=64, help="px.")] = 1280,
    height: Annotated[int, typer.Option("--height", min=64, help="px.")] = 1024,
    frames: Annotated[int, typer.Option("--frames", min=2, help="Frames.")] = 32,
    pixel_size: Annotated[float, typer.Option("--pixel-size", min=0.1, help="Å.")] = 1.76,
    dose_per_frame: Annotated[float, typer.Option("--dose-per-frame", min=0.01, help="e/Å².")] = 1.25,
    tilt: Annotated[float, typer.Option("--tilt", min=-60.0, max=60.0, help="Degrees.")] = 0.0,
    tilt_axis: Annotated[float, typer.Option("--tilt-axis", help="Degrees from +x towards +y.")] = 0.0,
    phase_shift: Annotated[float, typer.Option("--phase-shift", min=0.0, max=180.0, help="Of a phase plate, degrees.")] = 0.0,
    layout: Annotated[Layout, typer.Option("--layout", help="As EPU or as SerialEM writes.")] = Layout.EPU,
    movie_format: Annotated[Format, typer.Option("--format", help="Of the movies.")] = Format.TIFF,
    interval: Annotated[
        float, typer.Option("--interval", min=0.0, help="Seconds from one movie to the next (0: at once).")
    ] = 0.0,
    write_seconds: Annotated[float, typer.Option("--write-seconds", min=0.0, help="Seconds that writing one takes.")] = 0.0,
    bad: Annotated[int, typer.Option("--bad", min=0, help="So many movies arrive empty, cut, misshapen or as garbage.")] = 0,
    truth: Annotated[Path | None, typer.Option("--truth", help="Folder for the truth, outside OUT.")] = None,
) -> None:
    """Write movies of known particles, motion and defocus, as a microscope would, at its pace."""
    from frazil.simulator import Delivery, SimulationParameters, write_session

    _check(output, truth, movies, bad)
    parameters = SimulationParameters(
        seed=seed,
        movie_count=movies,
        particle=particle,
        particles_per_movie=particles_per_movie,
        width_px=width,
        height_px=height,
        frame_count=frames,
        pixel_size_angstrom=pixel_size,
        dose_per_frame_e_per_angstrom2=dose_per_frame,
        tilt_degrees=tilt,
        tilt_axis_degrees=tilt_axis,
        phase_shift_degrees=phase_shift,
    )
    delivery = Delivery(
        layout=layout.value,
        movie_format=movie_format.value,
        interval_seconds=interval,
        write_seconds=write_seconds,
        bad_movies=bad_movies(movies, bad),
    )
    with _Progress(movies) as progress:
        write_session(parameters, output, truth, delivery=delivery, on_movie=progress.arrived)
    print(f"{movies} movies are in {output}" + (f", their truth in {truth}" if truth else "") + ".")


def bad_movies(count: int, bad: int) -> tuple[BadMovie, ...]:
    """Return which movies arrive spoilt, spread over the session, each kind in turn."""
    from frazil.simulator import BadMovie

    kinds: tuple[BadKind, ...] = ("empty", "truncated", "other_shape", "garbage")
    return tuple(BadMovie(index=(2 * place + 1) * count // (2 * bad), kind=kinds[place % 4]) for place in range(bad))


def _check(output: Path, truth: Path | None, movies: int, bad: int) -> None:
    from frazil.model.errors import FrazilError

    if truth is not None and truth.resolve().is_relative_to(output.resolve()):
        raise FrazilError("TRUTH_IN_MOVIE_FOLDER", "The truth must not lie in the microscope's folder: name one beside it.")
    if bad > movies:
        raise FrazilError("TOO_MANY_BAD", f"--bad is {bad}, but there are only {movies} movies.")
    if output.exists() and not output.is_dir():
        raise FrazilError("OUTPUT_NOT_A_FOLDER", f"{output} is a file: choose a folder.")


class _Progress:
    """A bar on a terminal, a line per movie elsewhere."""

    def __init__(self, total: int) -> None:
        from rich.progress import Progress

        self._total = total
        self._bar = Progress()
        self._task = self._bar.add_task("movies", total=total)

    def __enter__(self) -> _Progress:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.console.is_terminal:
            self._bar.stop()

    def arrived(self, movie: DeliveredMovie) -> None:
        """Count a movie."""
        self._bar.advance(self._task)
        if not self._bar.console.is_terminal:
            print(f"{movie.index + 1} of {self._total}: {movie.path}", flush=True)
