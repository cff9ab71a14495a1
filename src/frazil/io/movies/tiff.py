"""TIFF and BigTIFF movies: uncompressed, LZW, deflate, zstd. Rows are turned into MRC order when read.

Header and structure use struct only; pixels are decoded in `_tiff_pixels`, which is imported when the first frame is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from frazil.io.movies import _tiff_directory as directory
from frazil.io.movies._contract import (
    DTYPE_BYTES,
    Completeness,
    Image,
    MovieInfo,
    check_limits,
    nonempty_size,
    truncated,
)

NAME = "TIFF"
SUFFIXES = (".tif", ".tiff")


def read_info(path: Path) -> MovieInfo:
    """Read the directories. Raises InputError for a file that is no TIFF movie, is cut, or exceeds the limits."""
    return _info(path, directory.read_pages(path))


def check_structure(path: Path) -> Completeness:
    """Say whether the chain of directories ends, all strips lie within the file, and all frames have one shape."""
    pages = directory.read_pages(path)
    info = _info(path, pages)
    size, end = nonempty_size(path), max(page.end for page in pages)
    if end > size:
        return Completeness(complete=False, sentence=truncated(path.name, size, end), info=info)
    for number, page in enumerate(pages, start=1):
        if page.layout != pages[0].layout:
            sentence = f"Frame {number} of {path.name} is {_layout(page)}, but the first frame is {_layout(pages[0])}."
            return Completeness(complete=False, sentence=sentence, info=info)
        if not _strips_filled(page):
            sentence = f"Frame {number} of {path.name} has strips without their pixels."
            return Completeness(complete=False, sentence=sentence, info=info)
    return Completeness(complete=True, sentence=f"{path.name} is complete.", info=info)


def iterate_frames(path: Path, info: MovieInfo) -> Iterator[Image]:
    """Yield the frames `(y, x)` in MRC row order, decoded by several threads a few frames ahead."""
    from frazil.io.movies import _tiff_pixels

    pages = directory.read_pages(path)
    return _tiff_pixels.iterate_pages(path, pages[: info.frame_count])


def _info(path: Path, pages: list[directory.Page]) -> MovieInfo:
    """Return the movie's header data, checked against the limits."""
    first = pages[0]
    info = MovieInfo(
        frame_count=len(pages),
        height_px=first.height_px,
        width_px=first.width_px,
        dtype=first.dtype,
        pixel_size_angstrom=first.pixel_size_angstrom,
        format=NAME,
    )
    check_limits(info, nonempty_size(path), path.name)
    return info


def _strips_filled(page: directory.Page) -> bool:
    """Say whether there are as many strips as the frame needs, none empty, and uncompressed ones of their full size."""
    if min(page.byte_counts) == 0 or min(page.offsets) == 0:
        return False
    if not page.plain:
        return True
    if len(page.offsets) != -(-page.height_px // page.strip_rows):
        return False
    frame_bytes = page.height_px * page.width_px * DTYPE_BYTES[page.dtype]
    return page.compression != directory.NONE or sum(page.byte_counts) >= frame_bytes


def _layout(page: directory.Page) -> str:
    return f"{page.width_px:,} x {page.height_px:,} px {page.dtype}"
