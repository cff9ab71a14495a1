"""Whether the gain reference lies over the movies as set: asked of the first movies of a worker, told with every exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.algorithms.gain_orientation import gain_sentence, weigh_orientations

MOVIES_MAX = 20  # when as many cannot tell, more will not


class GainCheck:
    """Adds up raw movies until they tell whether the gain fits; remembers the answer for as long as the gain is the same."""

    def __init__(self) -> None:
        self._gain: npt.NDArray[np.float32] | None = None
        self._total: npt.NDArray[Any] | None = None
        self._movies = 0
        self._sentence = ""

    def sentence(self, movie: npt.NDArray[Any], gain: npt.NDArray[np.float32] | None, rotate: int, flip: str) -> str:
        """Return what is wrong with the gain; empty when nothing is, or nothing can be told yet.

        Parameters
        ----------
        movie: `(frame, y, x)` as recorded.
        gain: `(y, x)` as it is applied, or None: then nothing is asked.
        rotate, flip: how it was turned.
        """
        if gain is None or gain.shape != movie.shape[1:]:
            return ""
        if gain is not self._gain:
            self._gain, self._total, self._movies, self._sentence = gain, np.zeros(gain.shape, np.float32), 0, ""
        if self._total is not None:
            self._total += movie.sum(axis=0, dtype=np.uint32 if movie.dtype.kind == "u" else np.float32)
            self._movies += 1
            evidence = weigh_orientations(gain, self._total)
            self._sentence = gain_sentence(evidence, rotate, flip)
            if evidence.clear or self._movies >= MOVIES_MAX:
                self._total = None
        return self._sentence
