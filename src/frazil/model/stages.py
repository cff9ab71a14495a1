"""The stages of preprocessing in order, and the session's parameters that each one depends on.

A stage also depends on all before it: what changes one stage makes it and those after it stale, and nothing else
(docs/decisions/0007-stage-digests.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STAGES = ("motion", "ctf", "pick", "threshold", "extract")

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "motion": (
        "pixel_size_angstrom",
        "voltage_kv",
        "dose_per_frame_e_per_angstrom2",
        "total_dose_e_per_angstrom2",
        "gain_path",
        "gain_flip",
        "gain_rotate",
        "gain_sense",
        "defects_path",
        "camera",
        "load_crop",
        "eer_fractions",
        "eer_dose_per_fraction_e_per_angstrom2",
        "eer_upsampling",
        "seed",
    ),
    "ctf": ("spherical_aberration_mm", "amplitude_contrast", "phase_shift_min_degrees", "phase_shift_max_degrees"),
    "pick": (
        "particle_diameter_angstrom",
        "particle_diameter_max_angstrom",
        "picker",
        "picker_shapes",
        "picker_min_distance_diameters",
        "picker_templates_path",
        "picker_template_numbers",
        "picker_lowpass_angstrom",
        "picker_angular_step_degrees",
    ),
    "threshold": ("picker_score_min", "picker_power_min", "picker_power_max", "picker_max_picks"),
    "extract": ("box_size_px", "output_box_px"),
}
"""Names of `SessionParameters`; every other one changes no result of preprocessing."""


def first_stale(made_with: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the first stage to redo: the first whose digests differ; "" when everything is up to date.

    `made_with` are the digests of what is there, in order of the stages; empty when nothing is.
    """
    for place, (stage, digest) in enumerate(zip(STAGES, wanted, strict=True)):
        if place >= len(made_with) or made_with[place] != digest:
            return stage
    return ""


def redone(stage: str, first_stage: str) -> bool:
    """Tell whether a stage is redone when the first stage to redo is `first_stage` ("" redoes none)."""
    return first_stage != "" and STAGES.index(stage) >= STAGES.index(first_stage)
