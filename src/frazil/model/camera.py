"""Cameras, as far as the size of their movies decides how much GPU memory a job needs."""

from __future__ import annotations

from enum import Enum

from frazil.model.errors import FrazilError


class Camera(Enum):
    """Camera and mode of a session; the values are what people type."""

    UNKNOWN = ""
    K2 = "k2"
    K2_SUPER_RESOLUTION = "k2-super-resolution"
    K3 = "k3"
    K3_SUPER_RESOLUTION = "k3-super-resolution"
    FALCON3 = "falcon3"
    FALCON4 = "falcon4"
    FALCON4_EER = "falcon4-eer"


def read_camera(name: str) -> Camera:
    """Return the camera of a name; raises FrazilError CAMERA_UNKNOWN naming the known ones."""
    try:
        return Camera(name.strip().lower())
    except ValueError:
        known = ", ".join(camera.value for camera in Camera if camera.value)
        raise FrazilError("CAMERA_UNKNOWN", f"There is no camera {name!r}; known are {known}, or leave it empty.") from None
