"""The door to the device."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from frazil import array
from frazil.model.errors import FrazilError


def test_a_gpu_without_cupy_is_one_sentence_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert array.backend() is np
    with pytest.raises(FrazilError, match=r"pip install 'frazil\[cuda12\]'"):
        array.backend("cupy")
