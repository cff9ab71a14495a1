"""What one exposure leaves on disk, and the record that names it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.estimate import CtfEstimate
from frazil.algorithms.ctf.picture import spectrum_picture
from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult
from frazil.array import to_host
from frazil.io.mrc import write_mrc
from frazil.io.particles import CANDIDATE_DTYPE, PARTICLE_DTYPE, STACK_NAME, TABLE_NAME, write_array, write_particles
from frazil.io.png import write_png
from frazil.io.relion import MotionSource, motion_star, picks_star
from frazil.io.star import write_star
from frazil.model.motion import Motion
from frazil.model.particles import half_set
from frazil.rpc.convert import set_ctf, set_ice, set_motion, set_optics
from frazil_preprocess.identity import candidate_uids
from frazil_preprocess.intermediates import Intermediates
from frazil_preprocess.pipeline import Moved, Preprocessed
from frazil_preprocess.settings import MovieSettings, Settings

MICROGRAPH, UNWEIGHTED, THUMBNAIL, SPECTRUM = "micrograph.mrc", "micrograph_unweighted.mrc", "thumbnail.png", "spectrum.png"
MOTION_STAR, PICKS_STAR, CANDIDATES = "motion.star", "picks.star", "candidates.npy"
FIXED_PATTERN_SUSPICIOUS = 0.02
NO_CTF, CTF_ON_BOUND, CRYSTALLINE_ICE = (
    "No CTF could be fitted: the defocus is a guess.",
    "The defocus lies at the edge of the search range.",
    "Crystalline ice is strong in this micrograph: its ring stands out of the spectrum.",
)


def write_products(
    found: Preprocessed, settings: Settings, exposure: Exposure, folder: Path, before: Intermediates | None = None
) -> ExposureResult:
    """Write every product of an exposure into its attempt's folder; returns the result that names them.

    What was not redone is taken over from `before`, the earlier attempt.
    """
    result = ExposureResult()
    if before is not None:
        result.CopyFrom(before.result)
        result.ClearField("stage_seconds")
    if found.moved is not None:
        _write_movie(found.moved, exposure, folder, result)
    elif before is not None:
        for name in (result.micrograph, result.micrograph_unweighted, result.thumbnail, result.motion_star):
            before.take_over(name, folder)
    _write_ctf(found, settings, folder, result, before)
    uids = candidate_uids(found.candidates, exposure, folder.name, before)
    _write_picks(found, settings, uids, folder, result)
    table = particle_table(found, settings, uids, (result.height_px, result.width_px))
    write_particles(folder, to_host(found.particles.images), table)
    result.particles, result.particle_table = (STACK_NAME, TABLE_NAME) if len(table) else ("", "")
    result.particle_count = len(table)
    result.particle_box_px = settings.box.output_box_px
    result.particle_pixel_size_angstrom = found.particles.pixel_size_angstrom
    return result


def _write_movie(moved: Moved, exposure: Exposure, folder: Path, result: ExposureResult) -> None:
    settings = moved.settings
    pixel_size, motion = settings.optics.pixel_size_angstrom, moved.corrected.motion
    write_mrc(folder / MICROGRAPH, moved.micrograph, pixel_size)
    write_mrc(folder / UNWEIGHTED, moved.unweighted, pixel_size)
    write_png(folder / THUMBNAIL, moved.thumbnail)
    source = _motion_source(exposure, settings)
    tables = motion_star(motion, source, settings.optics, local_coefficients=motion.local_coefficients)
    write_star(folder / MOTION_STAR, tables)
    result.micrograph, result.micrograph_unweighted = MICROGRAPH, UNWEIGHTED
    result.thumbnail, result.motion_star = THUMBNAIL, MOTION_STAR
    result.height_px, result.width_px = moved.micrograph.shape
    result.pixel_size_angstrom = pixel_size
    set_motion(result, motion)
    result.motion_frame_max_angstrom = _frame_max_angstrom(motion)
    _warn(result, _movie_warnings(moved))


def _write_ctf(
    found: Preprocessed, settings: Settings, folder: Path, result: ExposureResult, before: Intermediates | None
) -> None:
    set_optics(result, settings.optics)
    if found.estimate is None:
        if before is not None:
            before.take_over(result.spectrum, folder)
        return
    write_png(folder / SPECTRUM, to_host(spectrum_picture(found.ctf, found.estimate.diagnostics, settings.optics)))
    result.spectrum = SPECTRUM
    set_ctf(result, found.ctf)
    set_ice(result, found.estimate.ice.ring, found.estimate.ice.thickness)
    _warn(result, _ctf_warnings(found.estimate))


def _write_picks(
    found: Preprocessed, settings: Settings, uids: npt.NDArray[np.uint64], folder: Path, result: ExposureResult
) -> None:
    candidates = found.candidates
    table = np.zeros(len(candidates.picks), dtype=CANDIDATE_DTYPE)
    table["uid"] = uids
    for name in CANDIDATE_DTYPE.names or ():
        if name != "uid":
            table[name] = [getattr(pick, name) for pick in candidates.picks]
    write_array(folder / CANDIDATES, table)
    picks = [candidates.picks[index] for index in found.picked]
    write_star(folder / PICKS_STAR, picks_star(picks))
    result.candidates, result.picks_star = CANDIDATES, PICKS_STAR
    result.candidate_count, result.pick_count = len(table), len(picks)
    result.pick_score_min = candidates.score_min
    result.picker = settings.picker_name
    for name in ("score", "power"):
        result.ClearField(f"pick_{name}_median")  # type: ignore[arg-type]
        if picks:
            setattr(result, f"pick_{name}_median", float(np.median(table[name][found.picked])))


def particle_table(
    found: Preprocessed, settings: Settings, uids: npt.NDArray[np.uint64], shape: tuple[int, int]
) -> npt.NDArray[Any]:
    """Return the table of the extracted particles: who they are, where they were, and the CTF they were seen through.

    `uids` are those of the candidates, `shape` `(y, x)` that of the micrograph.
    """
    height, width = shape
    kept = found.picked[found.particles.kept]
    table = np.zeros(len(kept), dtype=PARTICLE_DTYPE)
    picks = [found.candidates.picks[index] for index in kept]
    table["uid"] = uids[kept]
    table["half_set"] = [half_set(int(uid)) for uid in uids[kept]]
    table["coordinate_x_px"] = [pick.x_px for pick in picks]
    table["coordinate_y_px"] = [pick.y_px for pick in picks]
    table["score"] = [pick.score for pick in picks]
    table["power"] = [pick.power for pick in picks]
    for name in ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degrees", "phase_shift_degrees"):
        table[name] = getattr(found.ctf, name)
    local = found.ctf.field.at(table["coordinate_x_px"] / width - 0.5, table["coordinate_y_px"] / height - 0.5)
    table["defocus_u_angstrom"] += local
    table["defocus_v_angstrom"] += local
    for name in ("voltage_kv", "spherical_aberration_mm", "amplitude_contrast"):
        table[name] = getattr(settings.optics, name)
    table["pixel_size_angstrom"] = found.particles.pixel_size_angstrom
    return table


def _motion_source(exposure: Exposure, settings: MovieSettings) -> MotionSource:
    info, rendering = settings.info, settings.info.rendering
    return MotionSource(
        movie=exposure.file.relative_path,
        frame_count=info.frame_count,
        height_px=info.height_px,
        width_px=info.width_px,
        load_crop=settings.load_crop,
        eer_grouping=rendering.frames_per_fraction if rendering is not None else None,
        eer_upsampling=rendering.upsampling if rendering is not None else 1,
    )


def _frame_max_angstrom(motion: Motion) -> float:
    """Return the longest way from one frame to the next, Å."""
    track = zip(motion.shift_x_px, motion.shift_y_px, strict=True)
    steps = (hypot(x - old_x, y - old_y) for (old_x, old_y), (x, y) in pairwise(track))
    return max(steps, default=0.0) * motion.pixel_size_angstrom


def _warn(result: ExposureResult, said: Mapping[str, bool]) -> None:
    """Write the sentences that hold, in place of those that an earlier attempt said."""
    others = [warning for warning in result.warnings if warning not in said]
    del result.warnings[:]
    result.warnings.extend([*others, *(sentence for sentence, holds in said.items() if holds)])


def _movie_warnings(moved: Moved) -> dict[str, bool]:
    """Return what an operator should read about the movie, and whether it holds."""
    corrected = moved.corrected
    frames = ", ".join(str(frame + 1) for frame in corrected.left_out_frames)
    return {
        corrected.problem or "": corrected.problem is not None,
        "The same pattern lies in every frame: check the gain reference and its orientation.": (
            corrected.fixed_pattern > FIXED_PATTERN_SUSPICIOUS
        ),
        f"Frames that could not be used: {frames}.": bool(frames),
    }


def _ctf_warnings(estimate: CtfEstimate) -> dict[str, bool]:
    fitted = estimate.ctf.fit_resolution_angstrom is not None
    return {
        NO_CTF: not fitted,
        CTF_ON_BOUND: fitted and estimate.ctf.on_bound,
        CRYSTALLINE_ICE: estimate.ice.crystalline,
    }
