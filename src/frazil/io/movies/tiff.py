"""TIFF and BigTIFF movies: uncompressed, LZW, deflate, zstd; pixels of 4 to 32 bits. Rows are turned into MRC order when read.

Header and structure use struct only; pixels are decoded in `_tiff_pixels`, which is imported when the first frame is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from frazil.io.movies._contract import Completeness, Image, MovieInfo, check_limits, nonempty_size
from frazil.io.movies._tiff_directory import Chain, cut_pages, read_pages
from frazil.io.movies._tiff_page import NONE, Page, read_page

NAME = "TIFF"
SUFFIXES = (".tif", ".tiff")
OPT_IN = False
EVENTS = False

_COMPRESSED_TAIL_BYTES, _PLAIN_TAIL_BYTES = 4096, 65_536
_UNUSED_MIN_BYTES = 256  # fewer zeros may be padding


def read_info(path: Path) -> MovieInfo:
    """Read the directories. Raises InputError for a file that is no TIFF movie, is cut, or exceeds the limits."""
    return _info(path, read_pages(path, read_page).pages)


def check_structure(path: Path) -> Completeness:
    """Say whether the chain of directories ends, all strips lie within the file, and all frames have one shape."""
    chain = read_pages(path, read_page)
    pages = chain.pages
    info = _info(path, pages)
    size = nonempty_size(path)
    if chain.end > size:
        return Completeness(complete=False, sentence=cut_pages(pages, size, chain.end, path.name), info=info)
    for number, page in enumerate(pages, start=1):
        if page.layout != pages[0].layout:
            sentence = f"Frame {number} of {path.name} is {_layout(page)}, but the first frame is {_layout(pages[0])}."
            return Completeness(complete=False, sentence=sentence, info=info)
        if not _strips_filled(page):
            sentence = f"Frame {number} of {path.name} has strips without their pixels."
            return Completeness(complete=False, sentence=sentence, info=info)
    if _tail_is_blank(path, size, chain):
        sentence = f"The end of {path.name} is all zeros: it looks preallocated and not yet filled."
        return Completeness(complete=False, sentence=sentence, info=info)
    return Completeness(complete=True, sentence=f"{path.name} is complete.", info=info)


def iterate_frames(path: Path, info: MovieInfo) -> Iterator[Image]:
    """Yield the frames `(y, x)` in MRC row order, decoded by several threads a few frames ahead."""
    from frazil.io.movies import _tiff_pixels

    pages = read_pages(path, read_page).pages
    return _tiff_pixels.iterate_pages(path, pages[: info.frame_count])


def _info(path: Path, pages: tuple[Page, ...]) -> MovieInfo:
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


def _strips_filled(page: Page) -> bool:
    """Say whether there are as many strips or tiles as the frame needs, none empty, uncompressed ones of their full size."""
    if min(page.byte_counts) == 0 or min(page.offsets) == 0:
        return False
    if len(page.offsets) != page.segment_count:
        return False
    return page.compression != NONE or sum(page.byte_counts) >= page.stored_bytes


def _tail_is_blank(path: Path, size: int, chain: Chain[Page]) -> bool:
    """Say whether the file goes on in zeros behind all that is used, or the strip that lies last ends in many zeros.

    That is how a file looks whose space was reserved before it was copied. Compressed pixels never hold such runs.
    """
    last = max(chain.pages, key=lambda page: page.end)
    count = _COMPRESSED_TAIL_BYTES if last.compression != NONE else _PLAIN_TAIL_BYTES
    begin, end = (chain.end, size) if size > chain.end else (max(last.end - count, last.offsets[-1]), last.end)
    with path.open("rb") as file:
        file.seek(begin)
        tail = file.read(min(end - begin, _PLAIN_TAIL_BYTES))
    return len(tail) >= _UNUSED_MIN_BYTES and tail.count(0) == len(tail)


def _layout(page: Page) -> str:
    return f"{page.width_px:,} x {page.height_px:,} px {page.dtype}"
