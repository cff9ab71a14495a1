"""The particle: where its atoms are. Built in are a chaperonin (PDB 4V8R) and two made-up particles for tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frazil.model.errors import InputError

_Z_OF = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9, "NA": 11, "MG": 12, "P": 15, "S": 16, "CL": 17, "K": 19, "CA": 20,
         "MN": 25, "FE": 26, "CO": 27, "NI": 28, "CU": 29, "ZN": 30, "SE": 34}  # fmt: skip
_PROTEIN_B_ANGSTROM2 = 80.0


@dataclass(frozen=True, slots=True)
class Atoms:
    """Atoms of one particle, centred: `xyz_angstrom` (n, 3) in the order x, y, z; `atomic_number` (n,); one B factor."""

    xyz_angstrom: npt.NDArray[np.float32]
    atomic_number: npt.NDArray[np.uint8]
    b_factor_angstrom2: float

    @property
    def diameter_angstrom(self) -> float:
        """Twice the radius about the centre that holds 99.5 % of the atoms."""
        radii = np.linalg.norm(self.xyz_angstrom, axis=1)
        return float(2.0 * np.quantile(radii, 0.995))

    def fragment(self, direction: npt.NDArray[np.floating[Any]]) -> Atoms:
        """Return the half of the particle on the side of `direction` (3,): what a broken particle looks like."""
        kept = self.xyz_angstrom @ direction.astype(np.float32) > 0.0
        return Atoms(self.xyz_angstrom[kept], self.atomic_number[kept], self.b_factor_angstrom2)


def load_atoms(source: str) -> Atoms:
    """Return a particle by name ("cct", "octahedron", "chain") or from a `.npz` or `.pdb` file.

    A `.npz` has arrays `xyz_centi_angstrom` (n, 3) and `atomic_number` (n,), optionally `b_factor_angstrom2` (n,).
    Raises InputError for an unknown name and for a file without atoms.
    """
    if source in BUILT_IN:
        return BUILT_IN[source]()
    path = Path(source)
    readers: dict[str, Callable[[Path], Atoms]] = {".npz": _read_npz, ".pdb": _read_pdb, ".ent": _read_pdb}
    if path.suffix.lower() not in readers or not path.is_file():
        raise InputError(
            "ATOMS_UNKNOWN", f"There is no particle {source!r}: name one of {', '.join(BUILT_IN)}, or a .pdb or .npz file."
        )
    return readers[path.suffix.lower()](path)


def _centred(xyz: npt.NDArray[np.floating[Any]], atomic_number: npt.NDArray[Any], b_factor: float) -> Atoms:
    """Put the centre of mass (weighted by atomic number) at the origin."""
    centre = np.average(xyz, axis=0, weights=atomic_number.astype(np.float64))
    return Atoms((xyz - centre).astype(np.float32), atomic_number.astype(np.uint8), float(b_factor))


def _read_npz(path: Path | Any) -> Atoms:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            xyz = arrays["xyz_centi_angstrom"].astype(np.float32) / 100.0
            atomic_number = arrays["atomic_number"]
            b_factors = arrays["b_factor_angstrom2"].astype(np.float32) if "b_factor_angstrom2" in arrays else None
    except (KeyError, ValueError, EOFError) as error:
        raise InputError("ATOMS_UNREADABLE", f"{path} holds no atoms as the simulator stores them: {error}.") from error
    if xyz.ndim != 2 or xyz.shape[1:] != (3,) or not len(xyz) or atomic_number.shape != (len(xyz),):
        raise InputError("ATOMS_UNREADABLE", f"{path} holds atoms of shape {xyz.shape}, not (n, 3).")
    return _centred(xyz, atomic_number, float(np.median(b_factors)) if b_factors is not None else _PROTEIN_B_ANGSTROM2)


def _read_pdb(path: Path) -> Atoms:
    """Read the ATOM and HETATM records of a PDB file: columns 31-54 coordinates, 61-66 B factor, 77-78 element.

    Hydrogens and water are left out; of several models the first is taken.
    """
    xyz, atomic_numbers, b_factors = [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.startswith("ENDMDL"):
            break
        if not line.startswith(("ATOM  ", "HETATM")) or line[17:20] in ("HOH", "WAT"):
            continue
        element = line[76:78].strip().upper() or re.sub(r"[\d\s]", "", line[12:16])[:1].upper()
        if element in ("H", "D"):
            continue
        try:
            xyz.append((float(line[30:38]), float(line[38:46]), float(line[46:54])))
            b_factors.append(float(line[60:66].strip() or _PROTEIN_B_ANGSTROM2))
        except ValueError as error:
            raise InputError("ATOMS_UNREADABLE", f"Line {number} of {path.name} is no PDB atom record.") from error
        atomic_numbers.append(_Z_OF.get(element, 6))
    if not xyz:
        raise InputError("ATOMS_UNREADABLE", f"{path.name} holds no atoms.")
    return _centred(np.array(xyz), np.array(atomic_numbers), float(np.median(b_factors)))


def _cct() -> Atoms:
    """Yeast chaperonin CCT, PDB entry 4V8R (CC0): 16 subunits, 0.9 MDa, two stacked rings, axis along z."""
    with resources.as_file(resources.files(__package__) / "data" / "cct_4v8r.npz") as path:
        return _read_npz(path)


def _blob(rng: np.random.Generator, centre: tuple[float, float, float], radius: float) -> npt.NDArray[np.float64]:
    """Return pseudo-atoms filling a ball at the density of protein (one atom per 19 cubic Å)."""
    count = int(4.19 * radius**3 / 19.0)
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.array(centre) + direction * radius * rng.random((count, 1)) ** (1 / 3)


def _octahedron() -> Atoms:
    """A made-up cage of exact octahedral symmetry, 130 Å wide: a chiral unit, turned 24 times.

    With 0.1 MDa it is next to invisible at the default contrast.
    """
    rng = np.random.Generator(np.random.PCG64(8))
    unit = np.concatenate([_blob(rng, (50.0, 12.0, 5.0), 9.5), _blob(rng, (38.0, 25.0, -6.0), 7.5)])
    turns = [np.diag(signs)[list(order)] for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
    xyz = np.concatenate([unit @ turn.T for turn in turns if np.linalg.det(turn) > 0])
    return _centred(xyz, np.full(len(xyz), 6), 120.0)


def _chain() -> Atoms:
    """A made-up particle without any symmetry, about 140 Å long: five unequal balls."""
    rng = np.random.Generator(np.random.PCG64(5))
    balls = [((-52.0, 0, 0), 20.0), ((-15, 18, 6), 24.0), ((22, 5, -14), 21.0), ((48, -22, 4), 17.0), ((4, -38, 22), 14.0)]
    xyz = np.concatenate([_blob(rng, centre, radius) for centre, radius in balls])
    return _centred(xyz, np.full(len(xyz), 6), 120.0)


BUILT_IN: dict[str, Callable[[], Atoms]] = {"cct": _cct, "octahedron": _octahedron, "chain": _chain}
"""The particles that need no file."""
