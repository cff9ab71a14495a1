"""Loads the CUDA twins of the 2D classification kernels; imported only where arrays already live on a device."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

SOURCES = ("sample.cu", "scatter.cu", "posterior.cu")
THREADS = 256


def source(name: str) -> str:
    """Return the CUDA text of `name`, a file beside this module."""
    return files("frazil.kernels").joinpath(name).read_text(encoding="utf-8")


@cache
def function(name: str, entry: str) -> Any:
    """Compile `name` once per process and return its kernel `entry`."""
    import cupy

    return cupy.RawModule(code=source(name), options=("--std=c++17",)).get_function(entry)


def blocks(count: int) -> int:
    """Return how many blocks of `THREADS` threads cover `count` elements."""
    return (count + THREADS - 1) // THREADS
