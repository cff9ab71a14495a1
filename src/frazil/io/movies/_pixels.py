"""What the decoders of all formats share: work ahead of the reader, and 4-bit pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Task = TypeVar("Task")
Frames = npt.NDArray[Any]

_BYTE = np.arange(256, dtype=np.uint8)
_LOW_FIRST = np.stack([_BYTE & 15, _BYTE >> 4], axis=1)
_HIGH_FIRST = np.ascontiguousarray(_LOW_FIRST[:, ::-1])


def decode_ahead(decode: Callable[[Task], Frames], tasks: Iterable[Task], threads: int) -> Iterator[Frames]:
    """Yield `decode(task)` in the order of the tasks; as many are decoded ahead as there are threads, plus one.

    What a task raises is raised when its turn comes. An unfinished iterator leaves no thread behind.
    """
    waiting: deque[Future[Frames]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for task in tasks:
            waiting.append(pool.submit(decode, task))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def unpack_nibbles(packed: npt.NDArray[np.uint8], width_px: int, *, low_first: bool) -> npt.NDArray[np.uint8]:
    """Unpack 4-bit pixels.

    Parameters
    ----------
    packed: `(y, ceil(width_px / 2))`, two pixels to a byte; the last half byte of a row of odd width is unused.
    low_first: the left pixel is in the low four bits (MRC mode 101), else in the high ones (TIFF 6.0).

    Returns
    -------
    `(y, width_px)` uint8, 0 to 15.
    """
    table = (_LOW_FIRST if low_first else _HIGH_FIRST).view(np.uint16)[:, 0]
    return np.take(table, packed).view(np.uint8)[:, :width_px]
