"""The scheduler's settings; an empty configuration works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frazil.model.errors import FrazilError
from frazil.rpc.config import SCHEDULER_ADDRESS_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Section [scheduler] of frazil.toml."""

    address: str = SCHEDULER_ADDRESS_DEFAULT  # "host:port"; port 0 takes a free one and writes scheduler.address
    data_dir: Path = Path("frazil-data")  # holds a folder per session
    ledger: str | None = None  # a file on a local disk, or postgresql://user@host/database; None: ledger.sqlite in data_dir
    events_kept_days: float = 30.0  # an event goes when it is older,
    events_kept_count: int = 2_000_000  # or when so many newer ones are there

    @property
    def ledger_place(self) -> Path | str:
        """Where the ledger is: the path of a file, or a URL."""
        return self.ledger or self.data_dir / "ledger.sqlite"

    def __post_init__(self) -> None:
        """Raise FrazilError CONFIG_INVALID when nothing would be kept."""
        if self.events_kept_days <= 0 or self.events_kept_count <= 0:
            raise FrazilError("CONFIG_INVALID", "events_kept_days and events_kept_count in [scheduler] must be more than 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """Section [lanes.<name>]: a backend and what it is told."""

    name: str
    backend: str = "node"
    options: Mapping[str, Any] = field(default_factory=dict)
    from_file: bool = True  # else it was added by RPC and lives in the ledger


def read_lanes(toml: Mapping[str, Any]) -> tuple[LaneSettings, ...]:
    """Return the configured lanes; without any there is "default", which has every node.

    Raises FrazilError CONFIG_INVALID when a section is not a table.
    """
    sections = toml.get("lanes", {})
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise FrazilError("CONFIG_INVALID", 'Lanes are tables: write [lanes.NAME] with backend = "node" and its options.')
    lanes = [
        LaneSettings(
            name=name,
            backend=str(section.get("backend", "node")),
            options={key: value for key, value in section.items() if key != "backend"},
        )
        for name, section in sections.items()
    ]
    if not any(lane.name == "default" for lane in lanes):
        lanes.append(LaneSettings(name="default"))
    return tuple(sorted(lanes, key=lambda lane: lane.name))
