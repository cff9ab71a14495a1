"""The sheet of classes and the table of assignments."""

from __future__ import annotations

import numpy as np

from frazil.algorithms.class2d.stream import Assignments
from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil_reconstruct.class_output import assignment_table, class_sheet
from frazil_reconstruct.jobs.class2d_streaming import class2d_parameters


def test_tiles_lie_in_class_order_row_by_row() -> None:
    averages = np.zeros((5, 8, 8), dtype=np.float32)
    for index in range(5):
        averages[index, index, :] = 1.0  # a bright line in row `index` tells whose tile it is
    sheet = class_sheet(averages, columns=3)
    assert sheet.shape == (16, 24)
    for index in range(5):
        row, column = divmod(index, 3)
        tile = sheet[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        assert tile[index].min() == 255
        assert np.delete(tile, index, axis=0).max() == 0
    assert sheet[8:, 16:].max() == 0


def test_contrast_is_each_class_s_own_and_a_flat_class_is_black() -> None:
    rng = np.random.default_rng(1)
    averages = np.stack([rng.standard_normal((16, 16)), 1000 * rng.standard_normal((16, 16)), np.full((16, 16), 7.0)])
    sheet = class_sheet(averages.astype(np.float32), columns=3)
    assert sheet[:, :16].max() == sheet[:, 16:32].max() == 255
    assert sheet[:, 32:].max() == 0


def test_assignments_keep_every_uid_and_count_classes_from_one() -> None:
    uid = np.array([2**63 + 5, 7], dtype=np.uint64)
    one = np.ones(2, dtype=np.float32)
    table = assignment_table(
        Assignments(
            uid=uid,
            class_index=np.array([0, 3]),
            psi_degrees=30 * one,
            origin_x_angstrom=-one,
            origin_y_angstrom=2 * one,
            probability=one,
            log_likelihood=one,
            generation=np.ones(2),
        )
    )
    assert table["uid"].tolist() == uid.tolist()
    assert table["class_number"].tolist() == [1, 4]
    assert table["origin_y_angstrom"].tolist() == [2.0, 2.0]


def test_the_larger_diameter_masks_and_unset_values_are_defaults() -> None:
    found = class2d_parameters(SessionParameters(particle_diameter_angstrom=120, particle_diameter_max_angstrom=180, seed=3))
    assert (found.particle_diameter_angstrom, found.class_count, found.seed) == (180, 50, 3)
    assert class2d_parameters(SessionParameters(particle_diameter_angstrom=120, class_count=12)).class_count == 12
