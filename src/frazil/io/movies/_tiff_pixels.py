"""Decoding of TIFF frames: strips straight through imagecodecs, several frames at once.

`tifffile`'s own `page.asarray` takes several times longer per frame; it is kept for what is stored in an unusual way.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from frazil.array import thread_count
from frazil.io.movies import _tiff_directory as directory
from frazil.model.errors import InputError

_DECODERS: dict[int, Callable[..., Any]] = {
    directory.LZW: imagecodecs.lzw_decode,
    directory.DEFLATE: imagecodecs.zlib_decode,
    directory.DEFLATE_OLD: imagecodecs.zlib_decode,
    directory.ZSTD: imagecodecs.zstd_decode,
}


def iterate_pages(path: Path, pages: Sequence[directory.Page]) -> Iterator[npt.NDArray[Any]]:
    """Yield the frames `(y, x)` in MRC row order; as many are decoded ahead as there are threads, plus one.

    Raises InputError for a frame that does not decode to its full size.
    """
    threads = min(thread_count(), len(pages))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    waiting: deque[Future[npt.NDArray[Any]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tiff")
    try:
        for index, page in enumerate(pages):
            waiting.append(pool.submit(_decode_page, descriptor, path, page, index))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        os.close(descriptor)


def _decode_page(descriptor: int, path: Path, page: directory.Page, index: int) -> npt.NDArray[Any]:
    """Decode one frame and put its last row first: TIFF counts rows from the top, MRC from the bottom."""
    try:
        rows = _decode_strips(descriptor, page) if page.plain else _decode_unusual(path, page, index)
    except (RuntimeError, ValueError, EOFError, tifffile.TiffFileError) as error:  # what codecs raise on broken data
        raise InputError(
            "MOVIE_DATA_CORRUPT", f"Frame {index + 1} of {path.name} cannot be decoded ({error}): copy the movie again."
        ) from error
    return np.ascontiguousarray(rows[::-1])


def _decode_strips(descriptor: int, page: directory.Page) -> npt.NDArray[Any]:
    """Decode the strips of a frame into place. Raises ValueError when one is short."""
    rows = np.empty((page.height_px, page.width_px), dtype=np.dtype(page.dtype).newbyteorder(page.byte_order))
    for strip, (offset, count) in enumerate(zip(page.offsets, page.byte_counts, strict=True)):
        part = rows[strip * page.strip_rows : (strip + 1) * page.strip_rows]
        target = part.reshape(-1).view(np.uint8)
        raw = os.pread(descriptor, count, offset)
        if page.compression == directory.NONE:
            decoded = np.frombuffer(raw, dtype=np.uint8, count=target.size)
            target[:] = decoded
        else:
            decoded = _DECODERS[page.compression](raw, out=target)
        if decoded.size != target.size:
            raise ValueError(f"strip {strip + 1} holds {decoded.size:,} of {target.size:,} bytes")
    return rows.astype(page.dtype, copy=False)


def _decode_unusual(path: Path, page: directory.Page, index: int) -> npt.NDArray[Any]:
    """Decode a frame with tiles, a predictor or reversed bits by tifffile. Raises ValueError for another shape."""
    with tifffile.TiffFile(path) as tiff:
        decoded = np.asarray(tiff.pages[index].asarray(maxworkers=1))
    if decoded.shape != (page.height_px, page.width_px):
        raise ValueError(f"its shape is {decoded.shape}")
    return decoded.astype(page.dtype, copy=False)
