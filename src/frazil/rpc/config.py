"""Configuration of every program: a flag beats an environment variable beats frazil.toml beats the default.

A program's settings are a frozen dataclass, read from one section of the file: field `lock_dir` of section `agent` is
`--lock-dir` on the command line, FRAZIL_AGENT_LOCK_DIR in the environment, and `lock_dir` under `[agent]` in the file.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from frazil.model.errors import FrazilError

SCHEDULER_ADDRESS_DEFAULT = "127.0.0.1:50051"

Settings = TypeVar("Settings")


def read_toml(path: Path | str | None) -> dict[str, Any]:
    """Read a configuration file; no path means an empty one. Raises FrazilError naming the file and what is wrong."""
    if path is None:
        return {}
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise FrazilError(
            "CONFIG_UNREADABLE", f"Cannot read the configuration {path}: {error.strerror}; check the path."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise FrazilError("CONFIG_INVALID", f"The configuration {path} is no valid TOML: {error}.") from error


def read_section(
    settings_type: type[Settings],
    section: str,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    toml: Mapping[str, Any] | None = None,
) -> Settings:
    """Fill a settings dataclass; a flag that is None counts as not given.

    Raises FrazilError for a value of the wrong type and for a key in the file that the program does not know.
    """
    environ = os.environ if environ is None else environ
    table = (toml or {}).get(section, {})
    hints = typing.get_type_hints(settings_type)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise FrazilError(
            "CONFIG_INVALID",
            f"[{section}] does not know {', '.join(unknown)}; it knows {', '.join(sorted(hints))}.",
        )
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        variable = f"FRAZIL_{section}_{name}".upper()
        if flags is not None and flags.get(name) is not None:
            values[name] = _convert(flags[name], hint, f"--{name.replace('_', '-')}")
        elif environ.get(variable):
            values[name] = _convert(environ[variable], hint, variable)
        elif name in table:
            values[name] = _convert(table[name], hint, f"{name} in [{section}]")
    return settings_type(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerAddress:
    """Where the scheduler listens: `--scheduler`, FRAZIL_SCHEDULER_ADDRESS, `address` in [scheduler]."""

    address: str = SCHEDULER_ADDRESS_DEFAULT


def scheduler_address(
    flag: str | None = None, *, environ: Mapping[str, str] | None = None, toml: Mapping[str, Any] | None = None
) -> str:
    """Return the scheduler's address, "host:port"; the section [scheduler] may hold more, which is the scheduler's business."""
    given = (toml or {}).get("scheduler", {}).get("address")
    only = {"scheduler": {"address": given}} if given is not None else {}
    return read_section(SchedulerAddress, "scheduler", flags={"address": flag}, environ=environ, toml=only).address


EXIT_OUT_OF_MEMORY = 5  # of a worker that got no more memory, on the GPU or on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnvironment:
    """What an agent, or a lane's job script, tells a worker through its environment. The worker needs nothing else."""

    scheduler_address: str
    lease_id: str
    epoch: int
    slot_key: str = ""
    device: str = "cpu"  # "gpu" or "cpu"
    memory_mib: int = 0  # 0: no cap
    threads: int = 0  # 0: all cores
    lock_fd: int | None = None  # None: the slot is held by other means (Slurm, Kubernetes)
    gpu_uuid: str = ""  # what CUDA may see; empty: nothing

    def to_environ(self) -> dict[str, str]:
        """Return the variables to set for the worker, thread limits of the numeric libraries included."""
        variables = {
            "FRAZIL_SCHEDULER_ADDRESS": self.scheduler_address,
            "FRAZIL_LEASE_ID": self.lease_id,
            "FRAZIL_EPOCH": str(self.epoch),
            "FRAZIL_SLOT_KEY": self.slot_key,
            "FRAZIL_DEVICE": self.device,
            "FRAZIL_MEMORY_MIB": str(self.memory_mib),
            "CUDA_VISIBLE_DEVICES": self.gpu_uuid,
        }
        if self.threads:
            limits = ("FRAZIL_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
            variables |= dict.fromkeys(limits, str(self.threads))
        if self.lock_fd is not None:
            variables["FRAZIL_LOCK_FD"] = str(self.lock_fd)
        return variables

    @staticmethod
    def from_environ(environ: Mapping[str, str]) -> WorkerEnvironment:
        """Read what `to_environ` wrote. Raises FrazilError NOT_A_WORKER when the program was started by hand."""
        missing = [name for name in ("FRAZIL_SCHEDULER_ADDRESS", "FRAZIL_LEASE_ID", "FRAZIL_EPOCH") if not environ.get(name)]
        if missing:
            raise FrazilError(
                "NOT_A_WORKER",
                f"This program is started by frazil-agent, which sets {', '.join(missing)}; start an agent instead.",
            )
        lock_fd = environ.get("FRAZIL_LOCK_FD")
        return WorkerEnvironment(
            scheduler_address=environ["FRAZIL_SCHEDULER_ADDRESS"],
            lease_id=environ["FRAZIL_LEASE_ID"],
            epoch=_convert(environ["FRAZIL_EPOCH"], int, "FRAZIL_EPOCH"),
            slot_key=environ.get("FRAZIL_SLOT_KEY", ""),
            device=environ.get("FRAZIL_DEVICE", "cpu"),
            memory_mib=_convert(environ.get("FRAZIL_MEMORY_MIB") or "0", int, "FRAZIL_MEMORY_MIB"),
            threads=_convert(environ.get("FRAZIL_THREADS") or "0", int, "FRAZIL_THREADS"),
            lock_fd=_convert(lock_fd, int, "FRAZIL_LOCK_FD") if lock_fd else None,
            gpu_uuid=environ.get("CUDA_VISIBLE_DEVICES", ""),
        )


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return `value`, which may be text, as the type a settings field is annotated with."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    try:
        if typing.get_origin(hint) is tuple:
            entries = [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value
            return tuple(_convert(entry, typing.get_args(hint)[0], where) for entry in entries)
        if dataclasses.is_dataclass(hint):
            return _table(hint, value, where)
        return _scalar(value, hint)
    except (TypeError, ValueError, AttributeError) as error:
        expected = getattr(hint, "__name__", str(hint))
        raise FrazilError("CONFIG_INVALID", f"{where} is {value!r}, which is not a valid {expected}.") from error


def _table(hint: Any, value: Any, where: str) -> Any:
    """Return a dataclass from a table of the file."""
    hints = typing.get_type_hints(hint)
    unknown = sorted(set(value.keys()) - set(hints))
    if unknown:
        raise FrazilError("CONFIG_INVALID", f"{where} does not know {', '.join(unknown)}; it knows {', '.join(sorted(hints))}.")
    return hint(**{name: _convert(entry, hints[name], where) for name, entry in value.items()})


def _scalar(value: Any, hint: Any) -> Any:
    """Return a number, text, path or truth value; true and false are never numbers, numbers never text."""
    if hint is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return value if isinstance(value, bool) else words[value.lower()] if value.lower() in words else _refuse(value)
    is_text = isinstance(value, str | Path)
    if isinstance(value, bool) or (hint in (str, Path) and not is_text) or (hint is int and isinstance(value, float)):
        return _refuse(value)
    if hint in (int, float, str, Path):
        return hint(value)
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise ValueError(value)
