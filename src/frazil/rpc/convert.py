"""The one place where records of `frazil.model` and messages of `frazil.api` become each other."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.api.exposure.v1.exposure_pb2 import MovieMetadata as MovieMetadataMessage
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.api.worker.v1.worker_pb2 import FailExposureRequest
from frazil.model.ctf import Ctf, DefocusField
from frazil.model.errors import FailureClass, InputError
from frazil.model.motion import Motion
from frazil.model.optics import MovieMetadata, Optics
from frazil.model.stages import PARAMETERS, STAGES

_METADATA_FIELDS = tuple(field.name for field in dataclasses.fields(MovieMetadata) if field.name != "provenance")
_FAILURE_CLASSES = {
    FailureClass.INPUT: FailExposureRequest.FAILURE_CLASS_INPUT,
    FailureClass.RESOURCE: FailExposureRequest.FAILURE_CLASS_RESOURCE,
    FailureClass.CRASH: FailExposureRequest.FAILURE_CLASS_CRASH,
    FailureClass.INFRA: FailExposureRequest.FAILURE_CLASS_INFRA,
}


def metadata_to_message(metadata: MovieMetadata) -> MovieMetadataMessage:
    """Return the message; fields that are None, and numbers that are not finite, stay unset."""
    message = MovieMetadataMessage()
    for name in _METADATA_FIELDS:
        value = getattr(metadata, name)
        if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
            setattr(message, name, value)
    message.provenance.update(dict(metadata.provenance))
    return message


def metadata_from_message(message: MovieMetadataMessage) -> MovieMetadata:
    """Return the record; unset fields are None."""
    set_fields = {descriptor.name for descriptor, _ in message.ListFields()}
    values: dict[str, Any] = {name: getattr(message, name) for name in _METADATA_FIELDS if name in set_fields}
    return MovieMetadata(**values, provenance=tuple(sorted(message.provenance.items())))


def optics_of(parameters: SessionParameters, metadata: MovieMetadata, *, frame_count: float | None = None) -> Optics:
    """Return the optics of a movie: what the person said, else what its metadata say, else the defaults of `Optics`.

    The dose of a frame may also come from a total dose and the number of frames. Raises InputError PIXEL_SIZE_UNKNOWN when
    neither the session nor the metadata gives a pixel size.
    """
    set_fields = {descriptor.name for descriptor, _ in parameters.ListFields()}
    values: dict[str, float] = {}
    for field in dataclasses.fields(Optics):
        given = getattr(parameters, field.name) if field.name in set_fields else getattr(metadata, field.name, None)
        if given is None and field.name == "dose_per_frame_e_per_angstrom2":
            given = _dose_per_frame(metadata, frame_count)
        if given is not None:
            values[field.name] = given
    if parameters.HasField("total_dose_e_per_angstrom2") and frame_count:
        values["dose_per_frame_e_per_angstrom2"] = parameters.total_dose_e_per_angstrom2 / frame_count
    if "pixel_size_angstrom" not in values:
        raise InputError(
            "PIXEL_SIZE_UNKNOWN",
            "Neither the session nor the movie's metadata gives the pixel size: set it in the session's parameters.",
        )
    return Optics(**values)


def _dose_per_frame(metadata: MovieMetadata, frame_count: float | None) -> float | None:
    frames = metadata.frame_count or frame_count
    if metadata.total_dose_e_per_angstrom2 is None or not frames:
        return None
    return metadata.total_dose_e_per_angstrom2 / frames


def set_optics(result: ExposureResult, optics: Optics) -> None:
    """Write the optics that were used into a result; the pixel size is the micrograph's and set apart."""
    result.voltage_kv = optics.voltage_kv
    result.spherical_aberration_mm = optics.spherical_aberration_mm
    result.amplitude_contrast = optics.amplitude_contrast
    result.dose_per_frame_e_per_angstrom2 = optics.dose_per_frame_e_per_angstrom2


def set_motion(result: ExposureResult, motion: Motion) -> None:
    """Write a motion's summary into a result."""
    result.motion_total_angstrom = motion.total_angstrom
    result.motion_early_angstrom = motion.early_angstrom
    result.motion_late_angstrom = motion.late_angstrom
    result.motion_local_angstrom = motion.local_angstrom
    result.motion_converged = motion.converged
    if motion.sigma_px is not None:
        result.motion_sigma_px = motion.sigma_px


def set_ctf(result: ExposureResult, ctf: Ctf) -> None:
    """Write a CTF fit into a result that says the size of its micrograph, in place of an older fit."""
    result.defocus_u_angstrom = ctf.defocus_u_angstrom
    result.defocus_v_angstrom = ctf.defocus_v_angstrom
    result.defocus_angle_degrees = ctf.defocus_angle_degrees
    result.phase_shift_degrees = ctf.phase_shift_degrees
    result.ctf_score = ctf.score
    for name in ("ctf_fit_resolution_angstrom", "defocus_field_angstrom", "tilt_axis_degrees"):
        result.ClearField(name)
    if ctf.fit_resolution_angstrom is not None:
        result.ctf_fit_resolution_angstrom = ctf.fit_resolution_angstrom
    result.defocus_range_angstrom = ctf.field.range_angstrom
    sides = (result.width_px * result.pixel_size_angstrom, result.height_px * result.pixel_size_angstrom)
    result.tilt_angle_degrees, axis = (0.0, 0.0) if ctf.field.flat else ctf.field.tilt(*sides)
    if not ctf.field.flat:
        result.defocus_field_angstrom.extend(ctf.field.coefficients_angstrom)
        result.tilt_axis_degrees = axis


def set_ice(result: ExposureResult, ring: float | None, thickness: float | None) -> None:
    """Write measures of ice into a result, in place of older ones."""
    for name, value in (("ice_ring", ring), ("ice_thickness_relative", thickness)):
        result.ClearField(name)  # type: ignore[arg-type]
        if value is not None:
            setattr(result, name, value)


def ctf_of(result: ExposureResult) -> Ctf:
    """Return the CTF fit of a result."""
    fitted = result.HasField("ctf_fit_resolution_angstrom")
    return Ctf(
        defocus_u_angstrom=result.defocus_u_angstrom,
        defocus_v_angstrom=result.defocus_v_angstrom,
        defocus_angle_degrees=result.defocus_angle_degrees,
        phase_shift_degrees=result.phase_shift_degrees,
        score=result.ctf_score,
        fit_resolution_angstrom=result.ctf_fit_resolution_angstrom if fitted else None,
        field=DefocusField(tuple(result.defocus_field_angstrom)) if result.defocus_field_angstrom else DefocusField(),
    )


def stage_digests(parameters: SessionParameters) -> tuple[str, ...]:
    """Return the digest of each preprocessing stage: of its parameters and of the digest of the stage before."""
    digests: list[str] = []
    for stage in STAGES:
        named = SessionParameters()
        for field, _ in parameters.ListFields():
            if field.name in PARAMETERS[stage]:
                _copy_field(parameters, named, field)
        text = "".join(digests[-1:]).encode() + named.SerializeToString(deterministic=True)
        digests.append(hashlib.blake2b(text, digest_size=6).hexdigest())
    return tuple(digests)


def _copy_field(source: Any, target: Any, field: FieldDescriptor) -> None:
    value = getattr(source, field.name)
    if field.is_repeated:
        getattr(target, field.name).extend(value)
    else:
        setattr(target, field.name, value)


def failure_class_to_message(failure_class: FailureClass) -> FailExposureRequest.FailureClass.ValueType:
    """Return the enum value; a returned exposure is no failure and has no record (see `WorkerContext.give_back`)."""
    return _FAILURE_CLASSES[failure_class]
