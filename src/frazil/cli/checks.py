"""What can be known to be wrong before anything is started: each is one sentence."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.io import export_names
from frazil.io.movie_glob import matches
from frazil.io.movies import MovieInfo, is_movie_name, read_info
from frazil.model.errors import DiskFullError, ErrorKind, FrazilError, InputError

FREE_BYTES_MIN = 2**30
_SAMPLE = 6


def check_movie_folder(folder: Path) -> None:
    """Raise FrazilError when the folder cannot be read."""
    if not folder.exists():
        raise FrazilError("FOLDER_MISSING", f"There is no folder {folder}: check the path.")
    if not folder.is_dir():
        raise FrazilError("FOLDER_NOT_A_FOLDER", f"{folder} is a file: give the folder that holds the movies.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise FrazilError("FOLDER_UNREADABLE", f"{folder} may not be read by this user: ask for read permission.")


def check_output(output: Path, folder: Path, state_folder: Path) -> None:
    """Raise FrazilError when results cannot go to `output` without harm."""
    target, movies = output.resolve(), folder.resolve()
    if target.is_relative_to(movies):
        raise FrazilError(
            "OUTPUT_IN_MOVIE_FOLDER",
            f"The output {output} lies in the movie folder, which is never written to: choose a folder outside {folder}.",
        )
    if movies.is_relative_to(target) and movies.relative_to(target).parts[0] in (*export_names.FOLDERS, state_folder.name):
        raise FrazilError(
            "OUTPUT_IN_MOVIE_FOLDER", f"The results in {output} would mix with the movies in {folder}: choose another --output."
        )
    if output.exists() and not output.is_dir():
        raise FrazilError("OUTPUT_NOT_A_FOLDER", f"The output {output} is a file: choose a folder.")
    strange = [name for name in export_names.TABLES if (output / name).exists()]
    if strange and not state_folder.exists():
        raise FrazilError(
            "OUTPUT_NOT_OURS",
            f"{output} already holds {strange[0]}, not made by this command: choose an empty or new folder.",
        )
    existing = next(parent for parent in (target, *target.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise FrazilError("OUTPUT_NOT_WRITABLE", f"This user may not write to {existing}: choose another --output.")
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES_MIN:
        raise DiskFullError(
            "DISK_NEARLY_FULL",
            f"Only {free / 2**20:,.0f} MiB are free on the disk of {existing}: free some space or choose another --output.",
            kind=ErrorKind.INVALID,
        )


def check_movies(folder: Path, parameters: SessionParameters, *, may_be_empty: bool) -> None:
    """Look at a few movies: are there any, does the gain fit, is the pixel size known. Raises FrazilError."""
    found = find_movies(folder, parameters.movie_glob, opt_in=parameters.read_bzip2)
    sample = list(itertools.islice(found, _SAMPLE))
    if not sample and not may_be_empty:
        which = f" that match {parameters.movie_glob!r}" if parameters.movie_glob else ""
        raise FrazilError("NO_MOVIES", f"There are no movies in {folder}{which}: check the path, or add --watch to wait.")
    check_camera(parameters, _usual(sample))
    if (
        sample
        and not parameters.HasField("pixel_size_angstrom")
        and not any(_says_pixel_size(movie, folder, parameters) for movie in sample)
    ):
        raise FrazilError(
            "PIXEL_SIZE_UNKNOWN", "No XML or mdoc file beside the movies tells the pixel size: give it with --pixel-size."
        )


def check_camera(parameters: SessionParameters, movie: MovieInfo | None) -> None:
    """Raise FrazilError when the gain reference or the defect map cannot be read, or does not fit such a movie."""
    from frazil.io.defect_map import read_defects
    from frazil.io.gain_reference import Flip, Sense, read_gain

    for path, what in ((parameters.gain_path, "gain reference"), (parameters.defects_path, "defect file")):
        if path and not Path(path).is_file():
            raise FrazilError("CAMERA_FILE_MISSING", f"There is no {what} {path}: check the path.")
    if parameters.gain_path:
        read_gain(
            parameters.gain_path,
            flip=cast("Flip", parameters.gain_flip),
            rotate=parameters.gain_rotate,
            expected_shape=(movie.height_px, movie.width_px) if movie is not None else None,
            sense=cast("Sense", parameters.gain_sense),
            rendering=movie.rendering if movie is not None else None,
        )
    if parameters.defects_path and movie is not None:
        read_defects(parameters.defects_path, (movie.height_px, movie.width_px), rendering=movie.rendering)


def find_movies(folder: Path, glob: str, *, opt_in: bool = False) -> Iterator[Path]:
    """Yield the files that look like movies, hidden ones left out; links to folders are followed, each folder once."""
    visited: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders.sort()
        for path in (
            Path(root, name) for name in sorted(names) if not name.startswith(".") and is_movie_name(name, opt_in=opt_in)
        ):
            if matches(glob, path.relative_to(folder).as_posix()) and path.is_file():
                yield path


def _usual(movies: list[Path]) -> MovieInfo | None:
    """Return a movie of the (y, x) shape that most of these have; gain references among them have one frame."""
    infos = [info for info in map(_info, movies) if info is not None and info.frame_count > 1]
    shapes = Counter((info.height_px, info.width_px) for info in infos)
    return max(infos, key=lambda info: shapes[info.height_px, info.width_px], default=None)


def _info(movie: Path) -> MovieInfo | None:
    try:
        return read_info(movie, opt_in=True)
    except (InputError, OSError):
        return None  # ingest will say what is wrong with it


def _says_pixel_size(movie: Path, folder: Path, parameters: SessionParameters) -> bool:
    from frazil.io.metadata import read_metadata

    found = read_metadata(movie, metadata_root=parameters.metadata_folder or None, movie_root=folder)
    return found.pixel_size_angstrom is not None
