"""What the decoders of several formats share: work ahead of the reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy.typing as npt

Task = TypeVar("Task")
Frames = npt.NDArray[Any]


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
