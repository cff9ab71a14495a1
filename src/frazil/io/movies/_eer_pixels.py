"""Rendering of EER events: raw frames are added up into fractions, several fractions at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from frazil.array import thread_count
from frazil.io.movies._contract import Rendering
from frazil.io.movies._pixels import decode_ahead
from frazil.kernels.events import READ_AHEAD_BYTES, add_events
from frazil.model.errors import InputError

if TYPE_CHECKING:
    from frazil.io.movies.eer import EventFrame

_AHEAD_MAX_BYTES = 2**30  # of fractions that are rendered and not yet taken


def render(
    path: Path, frames: Sequence[EventFrame], rendering: Rendering, count: int, dtype: str
) -> Iterator[npt.NDArray[Any]]:
    """Yield `count` frames `(y, x)` of `dtype`, each the sum of the next `rendering.frames_per_fraction` raw frames.

    Raises InputError for a raw frame whose codes do not fill the sensor exactly.
    """
    shape = (frames[0].height_px * rendering.upsampling, frames[0].width_px * rendering.upsampling)
    frame_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
    threads = max(1, min(thread_count(), count, _AHEAD_MAX_BYTES // frame_bytes - 1))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def fraction(index: int) -> npt.NDArray[Any]:
        counts = np.zeros(shape, dtype)
        first = index * rendering.frames_per_fraction
        for number in range(first, first + rendering.frames_per_fraction):
            frame = frames[number]
            bits = (frame.run_bits, frame.horizontal_bits, frame.vertical_bits)
            codes = _read_codes(descriptor, frame)
            if not add_events(codes, counts, bits, rendering.upsampling, padded=frame.padded):
                raise InputError(
                    "MOVIE_DATA_CORRUPT", f"Raw frame {number + 1} of {path.name} cannot be decoded: copy the movie again."
                )
        return counts

    try:
        yield from decode_ahead(fraction, range(count), threads)
    finally:
        os.close(descriptor)


def _read_codes(descriptor: int, frame: EventFrame) -> Any:
    """Read the strips of a raw frame into one array, which goes on in zeros for the decoder to read ahead into."""
    codes: Any = np.zeros(sum(frame.byte_counts) + READ_AHEAD_BYTES, np.uint8)
    filled = 0
    for offset, count in zip(frame.offsets, frame.byte_counts, strict=True):
        os.preadv(descriptor, [memoryview(codes)[filled : filled + count]], offset)  # what is missing stays zero and is noticed
        filled += count
    return codes
