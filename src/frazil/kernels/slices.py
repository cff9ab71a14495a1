"""Central slices through the transform of a volume, and their adjoint: trilinear reads and writes on half a padded cube.

The cube holds frequencies with x >= 0 of a Hermitian transform about the volume's centre: `cube[z, y, x]`, zero frequency at
`[reach, reach, 0]`, shape `(2 reach + 1, 2 reach + 1, reach + 1)`, sampled `padding` times finer than Fourier pixels. A slice
at orientation A has at (kx, ky) the volume's transform at `A^T (kx, ky, 0)` (docs/conventions.md).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from frazil.array import Array, is_cupy, is_numpy, namespace, to_host


def take_slices(cube: Array, frequency_x: Array, frequency_y: Array, matrices: Array, padding: int) -> Array:
    """Return slices of a half cube at the given orientations.

    Parameters
    ----------
    cube: half cube, complex. In the plane x = 0 both mates are there.
    frequency_x, frequency_y: (coefficient,) real, Fourier pixels; padding |k| < reach - 1.
    matrices: (row, 3, 3) real of the cube's precision.
    padding: how much finer the cube is sampled.

    Returns
    -------
    (row, coefficient) complex.
    """
    if is_numpy(cube):
        out = np.empty((matrices.shape[0], frequency_x.shape[0]), cube.dtype)
        _take(cube, frequency_x, frequency_y, matrices, padding, out)
        return out
    return take_slices_standard(cube, frequency_x, frequency_y, matrices, padding)


def take_slices_standard(cube: Array, frequency_x: Array, frequency_y: Array, matrices: Array, padding: int) -> Array:
    """Do what `take_slices` does in array-standard functions."""
    xp = namespace(cube)
    position, mate = _positions(frequency_x, frequency_y, matrices, padding)
    value = xp.zeros(mate.shape, dtype=cube.dtype)
    flat = xp.reshape(cube, (-1,))
    for cell, weight in _corners(position, cube.shape):
        value = value + xp.reshape(xp.take(flat, xp.reshape(cell, (-1,))), mate.shape) * weight
    return xp.where(mate, xp.conj(value), value)


def insert_slices(
    numerator: Array,
    denominator: Array,
    values: Array,
    weights: Array,
    frequency_x: Array,
    frequency_y: Array,
    matrices: Array,
    padding: int,
) -> None:
    """Add slices to half cubes, in place and in the order of rows: the adjoint of `take_slices`.

    The plane x = 0 gets each slice once; `complete_plane` adds the mates.

    Parameters
    ----------
    numerator, denominator: half cubes, complex and real.
    values: (row, coefficient) complex. weights: (row, coefficient) real.
    frequency_x, frequency_y, matrices, padding: as in `take_slices`.
    """
    if is_numpy(values):
        _insert(numerator, denominator, values, weights, frequency_x, frequency_y, matrices, padding)
    else:
        _insert_standard(numerator, denominator, values, weights, frequency_x, frequency_y, matrices, padding)


def complete_plane(cube: Array) -> Array:
    """Return a half cube of sums whose plane x = 0 has got the mates of what was inserted there."""
    xp = namespace(cube)
    plane = cube[:, :, 0]
    mates = xp.flip(plane, axis=(0, 1))
    if xp.isdtype(cube.dtype, "complex floating"):
        mates = xp.conj(mates)
    return xp.concat([(plane + mates)[:, :, None], cube[:, :, 1:]], axis=2)


def symmetrise_cubes(
    numerator: Array, denominator: Array, operators: np.ndarray[Any, Any], radius: float
) -> tuple[Array, Array]:
    """Return half cubes summed over a symmetry group: `sum over S of cube(S k)`, read trilinearly, zero beyond the radius.

    Both are read alike, so their quotient keeps its scale. Operators that map the axes onto each other read exact cells.

    Parameters
    ----------
    numerator, denominator: half cubes, plane x = 0 completed.
    operators: (operator, 3, 3) float64 host.
    radius: in cells; at most reach - 1.
    """
    if len(operators) == 1:
        return numerator, denominator
    xp = namespace(numerator)
    if is_numpy(numerator):
        sums = (np.zeros_like(numerator), np.zeros_like(denominator))
        _symmetrise(numerator, denominator, operators.astype(denominator.dtype), denominator.dtype.type(radius), *sums)
        return sums
    host = symmetrise_cubes(to_host(numerator), to_host(denominator), operators, radius)
    return xp.asarray(host[0]), xp.asarray(host[1])


def _positions(frequency_x: Array, frequency_y: Array, matrices: Array, padding: int) -> tuple[list[Array], Array]:
    """Return x, y, z in cells, each (row, coefficient) with x >= 0, and where the mate was taken."""
    xp = namespace(frequency_x)
    axes = [padding * (matrices[:, 0, i, None] * frequency_x + matrices[:, 1, i, None] * frequency_y) for i in range(3)]
    mate = axes[0] < 0
    return [xp.where(mate, -a, a) for a in axes], mate


def _corners(position: list[Array], shape: tuple[int, ...]) -> list[tuple[Array, Array]]:
    """Return flat cell and weight of each of the eight neighbours."""
    xp = namespace(position[0])
    reach = shape[2] - 1
    shifted = [position[0], position[1] + reach, position[2] + reach]
    low = [xp.floor(a) for a in shifted]
    part = [a - b for a, b in zip(shifted, low, strict=True)]
    x, y, z = (xp.astype(a, xp.int64) for a in low)
    corners = []
    for dz, wz in ((0, 1 - part[2]), (1, part[2])):
        for dy, wy in ((0, 1 - part[1]), (1, part[1])):
            for dx, wx in ((0, 1 - part[0]), (1, part[0])):
                corners.append((((z + dz) * shape[1] + y + dy) * shape[2] + x + dx, wx * wy * wz))
    return corners


def _insert_standard(
    numerator: Array,
    denominator: Array,
    values: Array,
    weights: Array,
    frequency_x: Array,
    frequency_y: Array,
    matrices: Array,
    padding: int,
) -> None:
    """Do what `insert_slices` does on any backend; on a device sums come in no fixed order."""
    xp = namespace(values)
    position, mate = _positions(frequency_x, frequency_y, matrices, padding)
    turned = xp.where(mate, xp.conj(values), values)
    for cell, weight in _corners(position, numerator.shape):
        if is_cupy(values):
            import cupyx

            cupyx.scatter_add(numerator.real.reshape(-1), cell, turned.real * weight)
            cupyx.scatter_add(numerator.imag.reshape(-1), cell, turned.imag * weight)
            cupyx.scatter_add(denominator.reshape(-1), cell, weights * weight)
            continue
        flat = to_host(xp.reshape(cell, (-1,)))
        for cube, addend in ((numerator, turned * weight), (denominator, weights * weight)):
            total = np.zeros(cube.size, to_host(addend).dtype)
            np.add.at(total, flat, to_host(xp.reshape(addend, (-1,))))
            cube += xp.reshape(xp.asarray(total), cube.shape)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _take(cube, frequency_x, frequency_y, matrices, padding, out):  # type: ignore[no-untyped-def]
    real = frequency_x.dtype.type  # keeps single precision single: int64 would promote to double
    one = real(1)
    scale = real(padding)
    reach = cube.shape[2] - 1
    centre = real(reach)
    for j in range(matrices.shape[0]):
        ax, ay, az = scale * matrices[j, 0, 0], scale * matrices[j, 0, 1], scale * matrices[j, 0, 2]
        bx, by, bz = scale * matrices[j, 1, 0], scale * matrices[j, 1, 1], scale * matrices[j, 1, 2]
        for i in range(frequency_x.size):
            x = ax * frequency_x[i] + bx * frequency_y[i]
            y = ay * frequency_x[i] + by * frequency_y[i]
            z = az * frequency_x[i] + bz * frequency_y[i]
            sign = one
            if x < 0:
                sign = -one
                x, y, z = -x, -y, -z
            y += centre
            z += centre
            ix, iy, iz = int(x), int(y), int(z)
            fx, fy, fz = x - real(ix), y - real(iy), z - real(iz)
            gx, gy = one - fx, one - fy
            near = (cube[iz, iy, ix] * gx + cube[iz, iy, ix + 1] * fx) * gy
            near += (cube[iz, iy + 1, ix] * gx + cube[iz, iy + 1, ix + 1] * fx) * fy
            far = (cube[iz + 1, iy, ix] * gx + cube[iz + 1, iy, ix + 1] * fx) * gy
            far += (cube[iz + 1, iy + 1, ix] * gx + cube[iz + 1, iy + 1, ix + 1] * fx) * fy
            value = near * (one - fz) + far * fz
            out[j, i] = complex(value.real, sign * value.imag)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _insert(  # type: ignore[no-untyped-def]
    numerator, denominator, values, weights, frequency_x, frequency_y, matrices, padding
):
    real = frequency_x.dtype.type
    one = real(1)
    scale = real(padding)
    centre = real(numerator.shape[2] - 1)
    for j in range(matrices.shape[0]):
        ax, ay, az = scale * matrices[j, 0, 0], scale * matrices[j, 0, 1], scale * matrices[j, 0, 2]
        bx, by, bz = scale * matrices[j, 1, 0], scale * matrices[j, 1, 1], scale * matrices[j, 1, 2]
        for i in range(frequency_x.size):
            x = ax * frequency_x[i] + bx * frequency_y[i]
            y = ay * frequency_x[i] + by * frequency_y[i]
            z = az * frequency_x[i] + bz * frequency_y[i]
            value = values[j, i]
            weight = weights[j, i]
            if x < 0:
                value = value.conjugate()
                x, y, z = -x, -y, -z
            y += centre
            z += centre
            ix, iy, iz = int(x), int(y), int(z)
            fx, fy, fz = x - real(ix), y - real(iy), z - real(iz)
            for dz in range(2):
                wz = fz if dz else one - fz
                for dy in range(2):
                    w = wz * (fy if dy else one - fy)
                    numerator[iz + dz, iy + dy, ix] += value * (w * (one - fx))
                    numerator[iz + dz, iy + dy, ix + 1] += value * (w * fx)
                    denominator[iz + dz, iy + dy, ix] += weight * (w * (one - fx))
                    denominator[iz + dz, iy + dy, ix + 1] += weight * (w * fx)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _symmetrise(numerator, denominator, operators, radius, numerator_sum, denominator_sum):  # type: ignore[no-untyped-def]
    real = denominator.dtype.type
    one = real(1)
    reach = numerator.shape[2] - 1
    centre = real(reach)
    for cz in range(2 * reach + 1):
        for cy in range(2 * reach + 1):
            for cx in range(reach):
                kx, ky, kz = real(cx), real(cy) - centre, real(cz) - centre
                if kx * kx + ky * ky + kz * kz > radius * radius:
                    continue
                numerator_total = numerator[cz, cy, cx]
                denominator_total = denominator[cz, cy, cx]
                for g in range(1, operators.shape[0]):
                    s = operators[g]
                    x = s[0, 0] * kx + s[0, 1] * ky + s[0, 2] * kz
                    y = s[1, 0] * kx + s[1, 1] * ky + s[1, 2] * kz
                    z = s[2, 0] * kx + s[2, 1] * ky + s[2, 2] * kz
                    sign = one
                    if x < 0:
                        sign = -one
                        x, y, z = -x, -y, -z
                    y += centre
                    z += centre
                    ix, iy, iz = int(x), int(y), int(z)
                    fx, fy, fz = x - real(ix), y - real(iy), z - real(iz)
                    value = numerator[cz, cy, cx] * real(0)
                    weight = real(0)
                    for dz in range(2):
                        wz = fz if dz else one - fz
                        for dy in range(2):
                            w = wz * (fy if dy else one - fy)
                            value += numerator[iz + dz, iy + dy, ix] * (w * (one - fx))
                            value += numerator[iz + dz, iy + dy, ix + 1] * (w * fx)
                            weight += denominator[iz + dz, iy + dy, ix] * (w * (one - fx))
                            weight += denominator[iz + dz, iy + dy, ix + 1] * (w * fx)
                    numerator_total += complex(value.real, sign * value.imag)
                    denominator_total += weight
                numerator_sum[cz, cy, cx] = numerator_total
                denominator_sum[cz, cy, cx] = denominator_total
