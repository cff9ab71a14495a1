"""What an earlier attempt has left of an exposure, for those that redo only the later stages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.io.mrc import read_mrc
from frazil.io.particles import CANDIDATE_DTYPE, read_table
from frazil.model.ctf import Ctf
from frazil.model.errors import InputError
from frazil.model.particles import Candidates, Pick
from frazil.rpc.convert import ctf_of

INTERMEDIATE_MISSING = "INTERMEDIATE_MISSING"


class Intermediates:
    """The files of an accepted attempt, read when asked for.

    Every method raises InputError INTERMEDIATE_MISSING when its file is gone or damaged.
    """

    def __init__(self, session_folder: Path, result: ExposureResult) -> None:
        self.result = result
        self.folder = session_folder / result.folder

    @property
    def ctf(self) -> Ctf:
        """The CTF fit."""
        return ctf_of(self.result)

    def micrograph(self) -> npt.NDArray[np.float32]:
        """Return the dose-weighted micrograph `(y, x)`."""
        return self._image(self.result.micrograph)

    def unweighted(self) -> npt.NDArray[np.float32]:
        """Return the micrograph without dose weighting `(y, x)`."""
        return self._image(self.result.micrograph_unweighted)

    def candidates(self) -> Candidates:
        """Return what the picker found."""
        table = self.candidate_table()
        picks = tuple(
            Pick(**{name: float(row[name]) for name in CANDIDATE_DTYPE.names or () if name != "uid"}) for row in table
        )
        return Candidates(picks=picks, score_min=self.result.pick_score_min)

    def candidate_table(self) -> npt.NDArray[np.void]:
        """Return what the picker found as a table of `CANDIDATE_DTYPE`, with the identities given to each."""
        try:
            return read_table(self._path(self.result.candidates), CANDIDATE_DTYPE)
        except (InputError, OSError) as error:
            raise self._missing(self.result.candidates) from error

    def take_over(self, name: str, folder: Path) -> str:
        """Bring a file into the folder of a new attempt, as a link where that is possible; returns its name."""
        if name:
            source, target = self._path(name), folder / name
            try:
                os.link(source, target)
            except FileNotFoundError as error:
                raise self._missing(name) from error
            except OSError:  # this file system has no links
                shutil.copyfile(source, target)
        return name

    def _image(self, name: str) -> npt.NDArray[np.float32]:
        try:
            image, _ = read_mrc(self._path(name))
        except (InputError, OSError) as error:
            raise self._missing(name) from error
        if image.shape != (self.result.height_px, self.result.width_px):
            raise self._missing(name)
        return image.astype(np.float32, copy=False)

    def _path(self, name: str) -> Path:
        if not name:
            raise self._missing("a file of it")
        return self.folder / name

    def _missing(self, name: str) -> InputError:
        return InputError(
            INTERMEDIATE_MISSING, f"{name} of the earlier result in {self.folder} is gone or damaged: process the movie anew."
        )
