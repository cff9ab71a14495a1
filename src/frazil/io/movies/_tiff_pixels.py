"""Decoding of TIFF frames: strips straight through imagecodecs, several frames at once.

`tifffile`'s own `page.asarray` takes several times longer per frame; it is kept for what is stored in an unusual way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from frazil.array import thread_count
from frazil.io.movies import _tiff_page as tiff_page
from frazil.io.movies._pixels import decode_ahead, unpack_nibbles
from frazil.io.movies._tiff_page import Page
from frazil.model.errors import InputError

_DECODERS: dict[int, Callable[..., Any]] = {
    tiff_page.LZW: imagecodecs.lzw_decode,
    tiff_page.DEFLATE: imagecodecs.zlib_decode,
    tiff_page.DEFLATE_OLD: imagecodecs.zlib_decode,
    tiff_page.ZSTD: imagecodecs.zstd_decode,
}


def iterate_pages(path: Path, pages: Sequence[Page], *, flip: bool = True) -> Iterator[npt.NDArray[Any]]:
    """Yield the frames `(y, x)`, in MRC row order unless told not to `flip`; several are decoded ahead.

    Raises InputError for a frame that does not decode to its full size.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def decode(index: int) -> npt.NDArray[Any]:
        rows = _decode_page(descriptor, path, pages[index], index)
        return np.ascontiguousarray(rows[::-1] if flip else rows)

    try:
        yield from decode_ahead(decode, range(len(pages)), min(thread_count(), len(pages)))
    finally:
        os.close(descriptor)


def _decode_page(descriptor: int, path: Path, page: Page, index: int) -> npt.NDArray[Any]:
    """Decode one frame, its top row first, as TIFF counts them."""
    try:
        return _decode_strips(descriptor, page) if page.plain else _decode_unusual(path, page, index)
    except (RuntimeError, ValueError, EOFError, tifffile.TiffFileError) as error:  # what codecs raise on broken data
        raise InputError(
            "MOVIE_DATA_CORRUPT", f"Frame {index + 1} of {path.name} cannot be decoded ({error}): copy the movie again."
        ) from error


def _decode_strips(descriptor: int, page: Page) -> npt.NDArray[Any]:
    """Decode the strips of a frame into place. Raises ValueError when one is short."""
    rows = np.empty((page.height_px, page.row_bytes), dtype=np.uint8)
    for strip, (offset, count) in enumerate(zip(page.offsets, page.byte_counts, strict=True)):
        target = rows[strip * page.strip_rows : (strip + 1) * page.strip_rows].reshape(-1)
        raw = os.pread(descriptor, count, offset)
        if page.compression == tiff_page.NONE:
            decoded = np.frombuffer(raw, dtype=np.uint8, count=target.size)
            target[:] = decoded
        else:
            decoded = _DECODERS[page.compression](raw, out=target)
        if decoded.size != target.size:
            raise ValueError(f"strip {strip + 1} holds {decoded.size:,} of {target.size:,} bytes")
    if page.bits == 4:
        return unpack_nibbles(rows, page.width_px, low_first=page.low_nibble_first)
    return rows.view(np.dtype(page.dtype).newbyteorder(page.byte_order)).astype(page.dtype, copy=False)


def _decode_unusual(path: Path, page: Page, index: int) -> npt.NDArray[Any]:
    """Decode a frame with tiles, a predictor or reversed bits by tifffile. Raises ValueError for another shape."""
    with tifffile.TiffFile(path) as tiff:
        decoded = np.asarray(tiff.pages[index].asarray(maxworkers=1))
    if page.low_nibble_first:
        decoded = unpack_nibbles(decoded.view(np.uint8), page.width_px, low_first=True)
    if decoded.shape != (page.height_px, page.width_px):
        raise ValueError(f"its shape is {decoded.shape}")
    return decoded.astype(page.dtype, copy=False)
