"""A throw-away process that uses a GPU once: `python -m frazil.agent.cuda_probe` copies 16 MiB there and back.

The GPU is the one that CUDA_VISIBLE_DEVICES shows. Exit codes: 0 it works, 1 it does not (one sentence on standard error),
3 it cannot be tried here, because CUDA's driver library is not installed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable

EXIT_WORKS = 0
EXIT_FAILS = 1
EXIT_UNKNOWN = 3

_BYTES = 16 * 2**20
_PATIENCE_SECONDS = 10.0
_COMMAND = (sys.executable, "-m", "frazil.agent.cuda_probe")


class CudaProbe:
    """One try of one GPU, in a process of its own. `clock` gives monotonic seconds."""

    def __init__(self, gpu_uuid: str, clock: Callable[[], float], command: tuple[str, ...] = _COMMAND) -> None:
        self._clock = clock
        self._give_up_at = clock() + _PATIENCE_SECONDS
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu_uuid},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def poll(self) -> str | None:
        """Return None while undecided, "" when the GPU works or cannot be tried, else why not."""
        code = self._process.poll()
        if code is None:
            if self._clock() < self._give_up_at:
                return None
            self.stop()
            return f"a first use of the GPU did not end within {_PATIENCE_SECONDS:.0f} s"
        words = self._process.stderr.read().decode(errors="replace").strip() if self._process.stderr else ""
        if self._process.stderr:
            self._process.stderr.close()
        if code in (EXIT_WORKS, EXIT_UNKNOWN):
            return ""
        return f"a first use of the GPU failed: {words.splitlines()[-1] if words else f'exit code {code}'}"

    def stop(self) -> None:
        """End the process; one that the driver does not let go of is left to die by itself."""
        self._process.kill()
        if self._process.stderr:
            self._process.stderr.close()


def main() -> int:
    """Use the GPU; return the exit code."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return EXIT_UNKNOWN
    try:
        _copy_there_and_back(cuda)
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILS
    return EXIT_WORKS


def _copy_there_and_back(cuda: ctypes.CDLL) -> None:
    """Raise RuntimeError when a call fails or the bytes come back otherwise. The process's end frees everything."""
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    sent, received = os.urandom(4096) * (_BYTES // 4096), ctypes.create_string_buffer(_BYTES)
    _check(cuda, "cuInit", 0)
    _check(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    _check(cuda, "cuCtxCreate_v2", ctypes.byref(context), 0, device)
    _check(cuda, "cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(_BYTES))
    _check(cuda, "cuMemcpyHtoD_v2", address, sent, ctypes.c_size_t(_BYTES))
    _check(cuda, "cuMemcpyDtoH_v2", received, address, ctypes.c_size_t(_BYTES))
    if received.raw != sent:
        raise RuntimeError("what was copied to the GPU came back otherwise")


def _check(cuda: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(cuda, name)(*arguments)
    if code:
        raise RuntimeError(f"{name} answers with CUDA error {code}")


if __name__ == "__main__":
    sys.exit(main())
