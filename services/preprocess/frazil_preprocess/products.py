"""What one exposure leaves on disk, and the record that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.ctf.picture import spectrum_picture
from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult
from frazil.array import to_host
from frazil.io.mrc import write_mrc
from frazil.io.particles import PARTICLE_DTYPE, STACK_NAME, TABLE_NAME, write_particles
from frazil.io.png import write_png
from frazil.io.relion import MotionSource, motion_star, picks_star
from frazil.io.star import write_star
from frazil.model.particles import half_set, particle_uid
from frazil.rpc.convert import set_ctf, set_motion, set_optics
from frazil_preprocess.pipeline import Preprocessed
from frazil_preprocess.settings import Settings

MICROGRAPH, THUMBNAIL, SPECTRUM = "micrograph.mrc", "thumbnail.png", "spectrum.png"
MOTION_STAR, PICKS_STAR = "motion.star", "picks.star"
FIXED_PATTERN_SUSPICIOUS = 0.02


def write_products(found: Preprocessed, settings: Settings, exposure: Exposure, folder: Path) -> ExposureResult:
    """Write every product of an exposure into its attempt's folder; returns the result that names them."""
    pixel_size = settings.optics.pixel_size_angstrom
    write_mrc(folder / MICROGRAPH, found.micrograph, pixel_size)
    write_png(folder / THUMBNAIL, found.thumbnail)
    write_png(folder / SPECTRUM, to_host(spectrum_picture(found.ctf, found.diagnostics, settings.optics)))
    motion, source = found.corrected.motion, _motion_source(exposure, settings)
    tables = motion_star(motion, source, settings.optics, local_coefficients=motion.local_coefficients)
    write_star(folder / MOTION_STAR, tables)
    write_star(folder / PICKS_STAR, picks_star(found.picks))
    table = particle_table(found, settings, exposure)
    write_particles(folder, to_host(found.particles.images), table)
    return _result(found, settings, len(table))


def particle_table(found: Preprocessed, settings: Settings, exposure: Exposure) -> npt.NDArray[Any]:
    """Return the table of the extracted particles: who they are, where they were, and the CTF they were seen through."""
    table = np.zeros(len(found.particles.kept), dtype=PARTICLE_DTYPE)
    identity = exposure.exposure_id if exposure.generation <= 1 else f"{exposure.exposure_id}.{exposure.generation}"
    uids = [particle_uid(identity, int(index)) for index in found.particles.kept]
    picks = [found.picks[index] for index in found.particles.kept]
    table["uid"] = uids
    table["half_set"] = [half_set(uid) for uid in uids]
    table["coordinate_x_px"] = [pick.x_px for pick in picks]
    table["coordinate_y_px"] = [pick.y_px for pick in picks]
    table["score"] = [pick.score for pick in picks]
    table["power"] = [pick.power for pick in picks]
    for name in ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degrees", "phase_shift_degrees"):
        table[name] = getattr(found.ctf, name)
    for name in ("voltage_kv", "spherical_aberration_mm", "amplitude_contrast"):
        table[name] = getattr(settings.optics, name)
    table["pixel_size_angstrom"] = found.particles.pixel_size_angstrom
    return table


def _motion_source(exposure: Exposure, settings: Settings) -> MotionSource:
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


def _result(found: Preprocessed, settings: Settings, particle_count: int) -> ExposureResult:
    height, width = found.micrograph.shape
    result = ExposureResult(
        micrograph=MICROGRAPH,
        thumbnail=THUMBNAIL,
        spectrum=SPECTRUM,
        motion_star=MOTION_STAR,
        picks_star=PICKS_STAR,
        particles=STACK_NAME if particle_count else "",
        particle_table=TABLE_NAME if particle_count else "",
        width_px=width,
        height_px=height,
        pixel_size_angstrom=settings.optics.pixel_size_angstrom,
        pick_count=len(found.picks),
        particle_count=particle_count,
        particle_box_px=settings.box.output_box_px,
        particle_pixel_size_angstrom=found.particles.pixel_size_angstrom,
        warnings=_warnings(found),
    )
    set_optics(result, settings.optics)
    set_motion(result, found.corrected.motion)
    set_ctf(result, found.ctf)
    return result


def _warnings(found: Preprocessed) -> list[str]:
    """Return what an operator should read about this exposure."""
    corrected, ctf = found.corrected, found.ctf
    frames = ", ".join(str(frame + 1) for frame in corrected.left_out_frames)
    said = {
        corrected.problem or "": corrected.problem is not None,
        "The same pattern lies in every frame: check the gain reference and its orientation.": (
            corrected.fixed_pattern > FIXED_PATTERN_SUSPICIOUS
        ),
        f"Frames that could not be used: {frames}.": bool(frames),
        "No CTF could be fitted: the defocus is a guess.": ctf.fit_resolution_angstrom is None,
        "The defocus lies at the edge of the search range.": ctf.fit_resolution_angstrom is not None and ctf.on_bound,
    }
    return [sentence for sentence, holds in said.items() if holds]
