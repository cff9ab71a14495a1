"""The options of a cluster's lane, from [lanes.<name>] of frazil.toml or from CreateLane."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from frazil.model.errors import FrazilError
from frazil.rpc.config import read_section
from frazil_scheduler.lanes import ClusterPolicy

Options = TypeVar("Options", bound="ClusterOptions")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What every cluster's lane can be told."""

    max_jobs: int = 8  # cluster jobs at once, pending ones included
    num_gpu: int = 1  # 0: a lane of processors
    num_cpu: int = 4
    ram_gb: int = 32
    walltime_seconds: float = 0.0  # asked for; 0: the cluster's own limit
    handover_seconds: float = 900.0
    drain_seconds: float = 180.0
    idle_seconds: float = 60.0
    list_seconds: float = 10.0  # between two questions to the cluster
    scheduler_address: str = ""  # as the cluster's machines see it; empty: the address the scheduler is bound to

    def policy(self, title: str) -> ClusterPolicy:
        """Return how the lane uses its cluster. Near a short walltime's end half of it must be left for work."""
        most = self.walltime_seconds / 2 or float("inf")
        return ClusterPolicy(
            title=title,
            gpus=self.num_gpu > 0,
            max_jobs=self.max_jobs,
            list_seconds=self.list_seconds,
            idle_seconds=self.idle_seconds,
            walltime_seconds=self.walltime_seconds,
            handover_seconds=min(self.handover_seconds, most),
            drain_seconds=min(self.drain_seconds, most / 2),
            scheduler_address=self.scheduler_address,
        )


def read_options(options_type: type[Options], lane: str, options: Mapping[str, Any]) -> Options:
    """Fill a lane's options; tables and lists of tables are taken as they are.

    Raises FrazilError CONFIG_INVALID naming the lane and the option that is unknown, of a wrong type or out of range.
    """
    section = f"lanes.{lane}"
    hints = typing.get_type_hints(options_type)
    nested = {name: option for name, option in options.items() if typing.get_origin(hints.get(name)) in (dict, list)}
    for name, option in nested.items():
        wanted = typing.get_origin(hints[name])
        if not isinstance(option, wanted) or (wanted is list and not all(isinstance(entry, dict) for entry in option)):
            kind = "a table" if wanted is dict else "a list of tables"
            raise FrazilError("CONFIG_INVALID", f"{name} in [{section}] must be {kind}.")
    flat = {name: option for name, option in options.items() if name not in nested}
    read = dataclasses.replace(read_section(options_type, section, environ={}, toml={section: flat}), **nested)
    floors: dict[str, float] = {
        "max_jobs": 1,
        "num_gpu": 0,
        "num_cpu": 1,
        "ram_gb": 1,
        "walltime_seconds": 0,
        "handover_seconds": 0,
    }
    floors |= {"drain_seconds": 0, "idle_seconds": 1, "list_seconds": 0.1}
    for name, floor in floors.items():
        if getattr(read, name) < floor:
            raise FrazilError("CONFIG_INVALID", f"{name} in [{section}] is {getattr(read, name)}; the least is {floor}.")
    return read
