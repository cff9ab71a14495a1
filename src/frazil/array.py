"""The array backend: the one door, with `kernels`, through which a device is named.

Every function of `primitives` and `algorithms` takes arrays, asks `namespace(x)` for the module they belong to, and runs
unchanged on numpy, cupy or array-api-strict. Host-to-device crossings happen in two places per job: after `io` reads,
before `io` writes.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
import scipy.fft

from frazil.model.errors import FrazilError

Array: TypeAlias = Any
"""An array of any backend. Shapes, axis order and units are said in each function's docstring."""


def namespace(*arrays: Array) -> Any:
    """Return the array-API module of the arrays; numpy scalars and Python numbers are ignored.

    Raises TypeError when the arrays belong to different backends.
    """
    return array_api_compat.array_namespace(*(a for a in arrays if not isinstance(a, (int, float, complex, np.generic))))


def fft(xp: Any) -> Any:
    """Return the FFT module for a namespace: scipy.fft on numpy (single precision kept), cupyx.scipy.fft on cupy.

    Only names that the array-API `fft` extension shares with scipy are to be used: fft2 does not exist there, so write
    `fftn(x, axes=(-2, -1))` and `rfftn(x, axes=(-2, -1))`, `irfftn(x, s=..., axes=(-2, -1))`.
    """
    if array_api_compat.is_numpy_namespace(xp):
        return scipy.fft
    if array_api_compat.is_cupy_namespace(xp):
        import cupyx.scipy.fft

        return cupyx.scipy.fft
    return xp.fft


def is_numpy(x: Array) -> bool:
    """Say whether the array lives in numpy, where compiled CPU kernels apply."""
    return isinstance(x, np.ndarray)


def is_cupy(x: Array) -> bool:
    """Say whether the array lives on a CUDA device."""
    return bool(array_api_compat.is_cupy_array(x))


def cuda_available() -> bool:
    """Say whether cupy is installed and sees a device."""
    try:
        import cupy
    except ImportError:
        return False
    return bool(cupy.cuda.is_available())


def backend(name: str = "auto") -> ModuleType:
    """Return the module a job computes with: "numpy", "cupy", or "auto" for cupy where a device answers.

    Raises ValueError for another name, and FrazilError CUPY_MISSING when cupy is asked for and missing.
    """
    if name == "auto":
        name = "cupy" if cuda_available() else "numpy"
    if name == "numpy":
        return np
    if name == "cupy":
        try:
            import cupy
        except ImportError as error:
            sentence = (
                "A GPU is to be used, but CuPy is not installed here: pip install 'frazil[cuda12]', or offer no GPU to Frazil."
            )
            raise FrazilError("CUPY_MISSING", sentence) from error
        module: ModuleType = cupy
        return module
    raise ValueError(f"unknown array backend {name!r}: say numpy, cupy or auto")


def to_device(a: np.ndarray[Any, Any], xp: Any) -> Array:
    """Copy a host array to the backend `xp`; on numpy this is the array itself."""
    return a if xp is np or array_api_compat.is_numpy_namespace(xp) else xp.asarray(a)


def to_host(a: Array) -> np.ndarray[Any, Any]:
    """Copy an array of any backend to numpy; a numpy array is returned as it is."""
    if isinstance(a, np.ndarray):
        return a
    return a.get() if hasattr(a, "get") else np.asarray(a)


def cap_memory(limit_mib: int) -> None:
    """Cap the cupy memory pool to the share of the leased GPU slot; without a device nothing is capped.

    The limit counts for the whole process, pinned host memory excluded (reliability: a worker stays within its share).
    """
    if cuda_available():
        import cupy

        cupy.get_default_memory_pool().set_limit(size=limit_mib * 2**20)


def thread_count() -> int:
    """Return how many CPU threads this worker may use: FRAZIL_THREADS, else all cores this process may run on."""
    given = os.environ.get("FRAZIL_THREADS")
    return max(1, int(given)) if given else len(os.sched_getaffinity(0))
