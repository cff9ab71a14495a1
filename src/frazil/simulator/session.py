"""A whole simulated session: movies arrive in the microscope's folder one after the other, the truth in another folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil.io.mrc import write_mrc
from frazil.simulator.atoms import load_atoms
from frazil.simulator.companions import epu_xml, serialem_mdoc
from frazil.simulator.eer import encode_eer, spread_counts
from frazil.simulator.encoding import defect_text, encode_gain_tiff, encode_mrc, encode_mrc_4bit, encode_tiff
from frazil.simulator.movie import SimulatedMovie, session_camera, simulate_movie
from frazil.simulator.naming import companion_path, movie_path, place_of
from frazil.simulator.parameters import BadKind, Delivery, SimulationParameters
from frazil.simulator.potential import potential_volume
from frazil.simulator.truth import TruthWriter

EER_RAW_FRAMES = 24  # of an EER movie for one frame of the others
COUNTS_MAX_4BIT = 15
GAIN_NAME = "gain.mrc"
GAIN_TIFF_NAME = "gain.gain"
DEFECTS_NAME = "defects.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredMovie:
    """One movie that has arrived: its number, its file, and whether it was meant to be spoilt."""

    index: int
    path: Path
    bad: BadKind | None


def write_session(
    parameters: SimulationParameters,
    out_dir: Path | str,
    truth_dir: Path | str | None = None,
    *,
    delivery: Delivery | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    on_movie: Callable[[DeliveredMovie], None] | None = None,
) -> list[DeliveredMovie]:
    """Simulate a session into `out_dir`, as EPU or SerialEM would write it, and its truth into `truth_dir`.

    Parameters
    ----------
    parameters : the physics, the number of movies, the seed.
    out_dir : the microscope's folder. `gain.mrc`, the same as TIFF `gain.gain`, and `defects.txt` come first, at its top. With
        EER movies gain.mrc holds what the camera sees under even light, to be divided by, as RELION takes it.
    truth_dir : outside `out_dir`; None for no truth.
    delivery : layout, format, rate, and how each file comes to be.
    clock, sleep : in seconds; given by tests.
    on_movie : called after each movie; what it raises ends the session.

    Raises
    ------
    ValueError : the truth would lie inside the microscope's folder.
    """
    delivery = delivery or Delivery()
    out = Path(out_dir)
    truth = None
    if truth_dir is not None:
        if Path(truth_dir).resolve().is_relative_to(out.resolve()):
            raise ValueError("the truth must not lie in the microscope's folder: name a folder beside it")
        truth = _begin_truth(Path(truth_dir), parameters)
    _write_camera(parameters, out, eer=delivery.movie_format == "eer")
    bad = {movie.index: movie.kind for movie in delivery.bad_movies}
    begin = clock()
    delivered = []
    for index in range(parameters.movie_count):
        movie = simulate_movie(parameters, index)
        wait = begin + index * delivery.interval_seconds - clock()
        if wait > 0:
            sleep(wait)
        arrived = _deliver(index, movie, parameters, out, delivery, bad.get(index), sleep)
        if truth is not None:
            name = movie_path(index, delivery)
            truth.add(name, movie, GAIN_NAME) if arrived.bad is None else truth.add_bad(name, arrived.bad)
        delivered.append(arrived)
        if on_movie is not None:
            on_movie(arrived)
    return delivered


def _begin_truth(folder: Path, parameters: SimulationParameters) -> TruthWriter:
    """Make the truth's folder, with the particle's true density: volume.mrc, its voxels the movie's pixels."""
    truth = TruthWriter(folder, parameters)
    atoms = load_atoms(parameters.particle)
    box = 2 * int(np.ceil(0.75 * atoms.diameter_angstrom / parameters.pixel_size_angstrom))
    volume = potential_volume(atoms, box, parameters.pixel_size_angstrom)
    write_mrc(folder / "volume.mrc", volume, parameters.pixel_size_angstrom)
    return truth


def _write_camera(parameters: SimulationParameters, out: Path, *, eer: bool) -> None:
    """Write gain reference and defect file, before the first movie."""
    camera = session_camera(parameters)
    out.mkdir(parents=True, exist_ok=True)
    values = np.divide(1.0, camera.gain, out=np.zeros_like(camera.gain), where=camera.gain > 0) if eer else camera.gain
    (out / GAIN_NAME).write_bytes(encode_mrc(values, parameters.pixel_size_angstrom))
    (out / GAIN_TIFF_NAME).write_bytes(encode_gain_tiff(camera, flip=not eer))
    (out / DEFECTS_NAME).write_text(defect_text(camera), encoding="ascii")


def _deliver(
    index: int,
    movie: SimulatedMovie,
    parameters: SimulationParameters,
    out: Path,
    delivery: Delivery,
    bad: BadKind | None,
    sleep: Callable[[float], None],
) -> DeliveredMovie:
    """Write one movie piece by piece, then its metadata."""
    path, companion = out / movie_path(index, delivery), out / companion_path(index, delivery)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = movie.frames
    if bad == "other_shape":
        frames = np.ascontiguousarray(frames[:, frames.shape[1] // 4 :, frames.shape[2] // 4 :])
    write_in_pieces(path, spoil(_encode(frames, index, parameters, delivery), bad), delivery, sleep)
    place = place_of(index, delivery)
    epu = delivery.layout == "epu"
    text = epu_xml(parameters, place) if epu else serialem_mdoc(parameters, place, path.name, GAIN_NAME)
    companion.write_text(text, encoding="utf-8")
    return DeliveredMovie(index=index, path=path, bad=bad)


def _encode(frames: npt.NDArray[np.uint8], index: int, parameters: SimulationParameters, delivery: Delivery) -> bytes:
    """Return a movie `(frame, y, x)` in the format of the delivery."""
    if delivery.movie_format == "tiff":
        return encode_tiff(frames)
    if delivery.movie_format == "mrc":
        return encode_mrc(frames, parameters.pixel_size_angstrom)
    if delivery.movie_format == "mrc-4bit":
        return encode_mrc_4bit(np.minimum(frames, COUNTS_MAX_4BIT), parameters.pixel_size_angstrom)
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence([parameters.seed, 3, index])))
    events = [event for frame in frames for event in spread_counts(frame, EER_RAW_FRAMES, rng)]
    return encode_eer(events, frames.shape[1:], total_dose_e_per_px=parameters.electrons_per_px * len(frames))


def spoil(data: bytes, kind: BadKind | None) -> bytes:
    """Return a movie's bytes as the accident leaves them; "other_shape" has happened to the frames already."""
    if kind == "empty":
        return b""
    if kind == "truncated":
        return data[: int(0.6 * len(data))]
    if kind == "garbage":
        return np.random.Generator(np.random.PCG64(len(data))).bytes(min(len(data), 200_000))
    return data


def write_in_pieces(path: Path, data: bytes, delivery: Delivery, sleep: Callable[[float], None]) -> None:
    """Write a file as a camera does: in pieces, with pauses, under a temporary name or not, space reserved or not."""
    written = path.with_name(f"{path.name}.part") if delivery.temporary_name else path
    pieces = max(1, delivery.piece_count)
    step = -(-len(data) // pieces) or 1
    with written.open("wb") as file:
        if delivery.preallocate:
            file.truncate(len(data))
        for start in range(0, len(data), step):
            if start and delivery.write_seconds > 0:
                file.flush()
                sleep(delivery.write_seconds / (pieces - 1))
            file.write(data[start : start + step])
    if delivery.temporary_name:
        written.rename(path)
