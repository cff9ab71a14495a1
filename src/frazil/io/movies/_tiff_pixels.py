"""Decoding of TIFF frames: strips and tiles straight through imagecodecs, several frames at once.

`tifffile`'s own `page.asarray` takes several times longer per frame, and raises anything on broken files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from frazil.array import thread_count
from frazil.io.movies import _tiff_page as tiff_page
from frazil.io.movies._pixels import decode_ahead
from frazil.io.movies._tiff_page import Page
from frazil.kernels.nibbles import unpack_nibbles
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
        page = pages[index]
        frame = np.empty((page.height_px, page.width_px), page.dtype)
        _decode_page(descriptor, path, page, index, frame[::-1] if flip else frame)
        return frame

    try:
        yield from decode_ahead(decode, range(len(pages)), min(thread_count(), len(pages)))
    finally:
        os.close(descriptor)


def _decode_page(descriptor: int, path: Path, page: Page, index: int, frame: npt.NDArray[Any]) -> None:
    """Decode one frame into `frame`, its top row first, as TIFF counts them."""
    try:
        _decode_segments(descriptor, page, frame)
    except (RuntimeError, ValueError, EOFError) as error:  # what codecs raise on broken data
        raise InputError(
            "MOVIE_DATA_CORRUPT", f"Frame {index + 1} of {path.name} cannot be decoded ({error}): copy the movie again."
        ) from error


def _decode_segments(descriptor: int, page: Page, frame: npt.NDArray[Any]) -> None:
    """Decode the strips or tiles of a frame into place. Raises ValueError when one is short."""
    buffer = np.empty((page.segment_rows, page.segment_row_bytes), np.uint8)  # one for all: fresh memory is slow
    for number, (offset, count) in enumerate(zip(page.offsets, page.byte_counts, strict=True)):
        top = number // page.segments_across * page.segment_rows
        left = number % page.segments_across * page.segment_columns
        place = frame[top : top + page.segment_rows, left : left + page.segment_columns]
        rows = page.segment_rows if page.tiled else len(place)
        stored = buffer[:rows]
        _decompress(os.pread(descriptor, count, offset), page.compression, stored.reshape(-1), number)
        place[...] = _pixels(stored, page)[: place.shape[0], : place.shape[1]]


def _decompress(raw: bytes, compression: int, target: npt.NDArray[np.uint8], number: int) -> None:
    """Fill the target, and never more than that. Raises ValueError when the segment is short."""
    if compression == tiff_page.NONE:
        decoded = np.frombuffer(raw, dtype=np.uint8, count=target.size)
        target[:] = decoded
    else:
        decoded = _DECODERS[compression](raw, out=target)
    if decoded.size != target.size:
        raise ValueError(f"strip {number + 1} holds {decoded.size:,} of {target.size:,} bytes")


def _pixels(stored: npt.NDArray[np.uint8], page: Page) -> npt.NDArray[Any]:
    """Return the pixels of a segment `(y, x)` from its bytes `(y, byte)`."""
    if page.bits == 4:
        if page.predictor != tiff_page.PLAIN:
            stored = imagecodecs.delta_decode(stored, axis=1)
        return unpack_nibbles(stored, page.segment_columns, low_first=page.low_nibble_first)
    if page.predictor == tiff_page.FLOAT_BYTES:  # these bytes have an order of their own
        return np.asarray(imagecodecs.floatpred_decode(stored.view(page.dtype), axis=1))
    pixels = stored.view(np.dtype(page.dtype).newbyteorder(page.byte_order)).astype(page.dtype, copy=False)
    return np.asarray(imagecodecs.delta_decode(pixels, axis=1)) if page.predictor == tiff_page.DIFFERENCES else pixels
