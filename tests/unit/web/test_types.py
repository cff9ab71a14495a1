"""The page's records are what the protos say: src/records.ts is what its generator writes."""

from __future__ import annotations

import runpy
from pathlib import Path

UI = Path(__file__).parents[3] / "services/web/ui"


def test_records_are_generated() -> None:
    made = runpy.run_path(str(UI / "generate_types.py"))["typescript"]()
    assert (UI / "src/records.ts").read_text(encoding="utf-8") == made, "run services/web/ui/generate_types.py and commit"


def test_a_type_of_each_kind() -> None:
    made = runpy.run_path(str(UI / "generate_types.py"))["typescript"]()
    for line in (
        "  readonly pixel_size_angstrom: number | null;",
        "  readonly labels: Readonly<Record<string, string>>;",
        "  readonly slots: readonly GpuSlot[];",
        "  readonly lease: Lease | null;",
        "  readonly grant_time: number | null;",
        "  readonly programs: readonly string[];",
        '  readonly kind: "unspecified" | "gpu" | "cpu" | "unknown";',
    ):
        assert line in made
