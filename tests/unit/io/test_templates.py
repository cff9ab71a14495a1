"""Templates from files: stacks, volumes, the STAR file of a classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from frazil.io.mrc import write_mrc
from frazil.io.star import write_star
from frazil.io.templates import read_templates
from frazil.model.errors import InputError

STACK = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)


def test_a_stack_and_a_single_image(tmp_path: Path) -> None:
    write_mrc(tmp_path / "classes.mrcs", STACK, 3.5, image_stack=True)
    found = read_templates(str(tmp_path / "classes.mrcs"))
    np.testing.assert_array_equal(found.images, STACK)
    assert found.pixel_size_angstrom == pytest.approx(3.5)
    write_mrc(tmp_path / "one.mrc", STACK[0], 2.0)
    assert read_templates(str(tmp_path / "one.mrc")).images.shape == (1, 16, 16)


def test_a_volume_becomes_views_of_it(tmp_path: Path) -> None:
    volume = np.zeros((32, 32, 32), dtype=np.float32)
    volume[12:21, 12:21, 12:21] = 1.0
    write_mrc(tmp_path / "map.mrc", volume, 4.0)
    assert read_templates(str(tmp_path / "map.mrc")).images.shape[1:] == (32, 32)


def test_of_a_classification_the_selected_classes(tmp_path: Path) -> None:
    (tmp_path / "class2d").mkdir()
    write_mrc(tmp_path / "class2d" / "classes.mrcs", STACK, 3.5, image_stack=True)
    names = [f"{i + 1:06d}@class2d/classes.mrcs" for i in range(4)]
    star = tmp_path / "class2d" / "classes.star"
    write_star(star, {"model_classes": {"rlnReferenceImage": names, "rlnSelected": np.array([0, 1, 0, 1])}})
    np.testing.assert_array_equal(read_templates(str(star)).images, STACK[[1, 3]])


def test_what_holds_no_templates_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    write_star(tmp_path / "b.star", {"other": {"rlnImageName": ["1@x.mrcs"]}})
    write_mrc(tmp_path / "c.mrc", np.ones((4, 8, 8), dtype=np.float32), 1.0)
    write_star(tmp_path / "d.star", {"model_classes": {"rlnReferenceImage": ["1@x.mrcs"], "rlnSelected": np.array([1])}})
    write_star(tmp_path / "e.star", {"model_classes": {"rlnReferenceImage": ["1@x.mrcs"], "rlnSelected": np.array([0])}})
    for name, words in (
        ("none.mrcs", "check the path"),
        ("a.txt", "give .mrcs, .mrc or .star"),
        ("b.star", "rlnReferenceImage"),
        ("c.mrc", "a cube"),
        ("d.star", "neither beside it"),
        ("e.star", "No class"),
    ):
        with pytest.raises(InputError, match=words):
            read_templates(str(tmp_path / name))
