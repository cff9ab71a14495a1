import re
import shutil
import subprocess

import numpy as np
import pytest

from frazil.model.errors import InputError
from frazil.primitives.rotations import sphere_points
from frazil.primitives.symmetry import symmetry

ORDERS = {"C1": 1, "C7": 7, "D2": 4, "D7": 14, "T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_operators_form_a_group_of_turns(name, order):
    operators = symmetry(name).operators
    assert len(operators) == order
    np.testing.assert_allclose(operators[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(operators), 1)
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 3, 3)
    distance = np.abs(products[:, None] - operators).max(axis=(2, 3)).min(axis=1)
    assert distance.max() < 1e-9


@pytest.mark.parametrize("name", ["C7", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"])
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
def test_settings_are_relions(name):
    run = subprocess.run(["relion_refine", "--sym", name, "--print_symmetry_ops"], capture_output=True, text=True, check=True)
    blocks = re.split(r"R\(\d+\)=", run.stdout)[1:]
    theirs = np.array([np.array(block.split()[:9], float).reshape(3, 3) for block in blocks])
    distance = np.abs(theirs[:, None] - symmetry(name).operators).max(axis=(2, 3))
    assert distance.shape == (ORDERS[name], ORDERS[name])
    assert distance.min(axis=0).max() < 1e-5  # what is printed
    assert distance.min(axis=1).max() < 1e-5


def test_fivefold_and_twofold_axes_of_the_icosahedral_settings():
    """Where the axes are is what tells the settings apart: I2 twofolds on x, y, z; I3 and I4 a fivefold on z."""
    for name, fold, axis in (("I1", 2, "z"), ("I2", 2, "x"), ("I3", 5, "z"), ("I4", 5, "z"), ("T", 3, "z"), ("O", 4, "x")):
        direction = np.eye(3)["xyz".index(axis)]
        fixing = [s for s in symmetry(name).operators if np.allclose(s @ direction, direction)]
        assert len(fixing) == fold, name
    i3, i4 = symmetry("I3").operators, symmetry("I4").operators
    assert np.abs(i3[:, None] - i4).max(axis=(2, 3)).min(axis=1).max() > 0.1


@pytest.mark.parametrize("name", ORDERS)
def test_the_asymmetric_unit_holds_one_of_each_set_of_mates(name):
    group = symmetry(name)
    mates = np.einsum("gij,vj->gvi", group.operators, sphere_points(500) + 1e-3)
    inside = np.stack([group.unique(m / np.linalg.norm(m, axis=1, keepdims=True)) for m in mates])
    assert (inside.sum(axis=0) == 1).mean() > 0.99  # but for points on a border
    assert inside.sum(axis=0).min() == 1
    assert len(group.views(3000, np.eye(3))) == pytest.approx(3000 / group.order, rel=0.15)


@pytest.mark.parametrize("name", ["", "C", "C0", "D", "I5", "OH", "X3"])
def test_unknown_groups_are_refused_in_one_sentence(name):
    with pytest.raises(InputError, match="name one of C1"):
        symmetry(name)
    assert symmetry(" i ").name == "I2"
