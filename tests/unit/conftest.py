"""Fixtures shared by the unit tests."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest


@pytest.fixture(params=["numpy", "strict"])
def xp(request: pytest.FixtureRequest) -> Any:
    """An array backend: numpy, and array-api-strict, which has nothing outside the standard: what passes there runs on cupy."""
    return np if request.param == "numpy" else array_api_strict
