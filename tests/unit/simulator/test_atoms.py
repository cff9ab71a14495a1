"""Particles: built in, from PDB files, from arrays; broken files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.model.errors import InputError
from frazil.simulator.atoms import BUILT_IN, load_atoms

PDB = """HEADER    SMALL
ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00 20.00           N
ATOM      2  CA  ALA A   1      13.104   6.134  -6.504  1.00 30.00           C
ATOM      3  H   ALA A   1      12.104   6.134  -6.504  1.00 30.00           H
HETATM    4  O   HOH A   2      99.000  99.000  99.000  1.00 10.00           O
HETATM    5 ZN    ZN A   3      12.000   9.000  -6.504  1.00 40.00          ZN
ENDMDL
ATOM      6  CA  ALA A   1      50.000  50.000  50.000  1.00 30.00           C
"""


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_built_in_particles_are_centred(name: str) -> None:
    atoms = load_atoms(name)
    assert len(atoms.xyz_angstrom) > 1000
    centre = np.average(atoms.xyz_angstrom, axis=0, weights=atoms.atomic_number)
    np.testing.assert_allclose(centre, 0.0, atol=0.01)
    assert 100.0 < atoms.diameter_angstrom < 220.0


def test_cct_has_the_size_of_a_chaperonin() -> None:
    assert 160.0 < load_atoms("cct").diameter_angstrom < 190.0  # 160 Å wide, 180 Å high


def test_pdb(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text(PDB)
    atoms = load_atoms(str(tmp_path / "a.pdb"))
    assert atoms.atomic_number.tolist() == [7, 6, 30]  # no hydrogen, no water, one model
    assert atoms.b_factor_angstrom2 == 30.0
    np.testing.assert_allclose(atoms.xyz_angstrom[1] - atoms.xyz_angstrom[0], [2.0, 0.0, 0.0], atol=1e-5)


def test_arrays(tmp_path: Path) -> None:
    xyz = np.array([[0, 0, 0], [1000, 0, 0]], np.int16)
    np.savez(tmp_path / "a.npz", xyz_centi_angstrom=xyz, atomic_number=np.array([6, 6], np.uint8))
    np.testing.assert_allclose(load_atoms(str(tmp_path / "a.npz")).xyz_angstrom[:, 0], [-5.0, 5.0])


def test_a_fragment_is_one_half() -> None:
    atoms = load_atoms("chain")
    half = atoms.fragment(np.array([1.0, 0.0, 0.0]))
    assert (half.xyz_angstrom[:, 0] > 0).all()
    assert 0.2 < len(half.xyz_angstrom) / len(atoms.xyz_angstrom) < 0.8


def test_what_is_no_particle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name one of cct, octahedron, chain"):
        load_atoms("ribosome")
    (tmp_path / "a.pdb").write_text("REMARK nothing here\n")
    with pytest.raises(InputError, match="holds no atoms"):
        load_atoms(str(tmp_path / "a.pdb"))
    (tmp_path / "a.pdb").write_text("ATOM      1  N   ALA A   1      what is this\n")
    with pytest.raises(InputError, match=r"Line 1 of a\.pdb"):
        load_atoms(str(tmp_path / "a.pdb"))
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="holds no atoms as the simulator stores them"):
        load_atoms(str(tmp_path / "a.npz"))
