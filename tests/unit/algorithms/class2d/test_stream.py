"""The driver: recovers planted views and junk; the result depends on the sequence of blocks and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from frazil.algorithms.class2d.images import ParticleBlock
from frazil.algorithms.class2d.parameters import Class2dParameters
from frazil.algorithms.class2d.schedule import angle_count, class_target, final_plan, shift_disc
from frazil.algorithms.class2d.state import Phase, from_arrays, half_index
from frazil.algorithms.class2d.stream import Streaming2d
from frazil.model.errors import FrazilError
from frazil.model.particles import half_set

PIXEL = 4.0
TINY = Class2dParameters(
    particle_diameter_angstrom=85.0,
    class_count=3,
    max_resolution_angstrom=16.0,
    bootstrap_images=50,
    unit_images=20,
    images_per_class=25,
)


def begin(state: Any = None, *, xp: Any = np, box: int = 32, parameters: Class2dParameters = TINY) -> Streaming2d:
    return Streaming2d(parameters, box_size_px=box, pixel_size_angstrom=PIXEL, xp=xp, state=state)


def by_sequence(blocks: list[ParticleBlock]) -> Callable[[int], ParticleBlock]:
    return {block.sequence: block for block in blocks}.__getitem__


def arrays_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


@pytest.fixture(scope="module")
def blocks(tiny_stack: Any) -> list[ParticleBlock]:
    made: list[ParticleBlock] = tiny_stack.blocks(15)
    return made


@pytest.fixture(scope="module")
def uninterrupted(blocks: list[ParticleBlock]) -> dict[str, np.ndarray]:
    run = begin()
    for block in blocks:
        run.add_block(block)
    run.finalise()
    return run.state.to_arrays()


# ------------------------------------------------------------------------------------------------ what it finds


@pytest.fixture(scope="module")
def recovered(simulate: Callable[..., Any], blob_chain: Callable[..., np.ndarray]) -> tuple[Any, Streaming2d]:
    """700 images of two kinds of particle in three views each, SNR 0.15, 8 % pure noise."""
    views = [blob_chain(seed, 14, 62.0) for seed in (1, 2, 3)] + [blob_chain(seed, 7, 50.0) for seed in (4, 5, 6)]
    stack = simulate(48, 700, views, snr=0.15, junk=0.08, seed=11)
    parameters = Class2dParameters(particle_diameter_angstrom=140.0, class_count=10, max_resolution_angstrom=14.0)
    run = begin(box=48, parameters=parameters)
    for block in stack.blocks(60):
        run.add_block(block)
        while run.advance():
            pass
    run.finalise()
    return stack, run


def best_correlation(average: np.ndarray, clean: np.ndarray) -> float:
    """Over rotations in the plane and shifts, inside the particle."""
    best = 0.0
    normal = np.fft.fft2(clean - clean.mean())
    for degrees in range(0, 360, 5):
        turned = scipy.ndimage.rotate(average, degrees, reshape=False, order=1)
        turned = turned - turned.mean()
        correlation = np.fft.ifft2(np.fft.fft2(turned).conj() * normal).real
        best = max(best, correlation.max() / (np.linalg.norm(turned) * np.linalg.norm(clean - clean.mean())))
    return best


def test_class_averages_look_like_the_views_of_their_particles(recovered: tuple[Any, Streaming2d]) -> None:
    stack, run = recovered
    averages, summaries, found = run.class_averages(), run.class_summaries(), run.assignments()
    assert averages.shape == (10, 48, 48)
    seen = set()
    for summary in summaries:
        members = stack.kind[found.class_index == summary.index]
        if len(members) < 20 or not summary.selected:
            continue
        view = np.bincount(members + 1).argmax() - 1
        if (members == view).mean() > 0.8:
            seen.add(view)
            assert best_correlation(averages[summary.index], stack.clean[view]) > 0.9
    assert len(seen) >= 5


def test_particles_of_one_class_show_one_view(recovered: tuple[Any, Streaming2d]) -> None:
    stack, run = recovered
    found = run.assignments()
    assert len(found.uid) == 700
    table = np.zeros((10, 7))
    np.add.at(table, (found.class_index, stack.kind + 1), 1)
    assert table[:, 1:].max(axis=1).sum() / table[:, 1:].sum() > 0.85


def test_junk_gets_classes_of_its_own_and_is_not_selected(recovered: tuple[Any, Streaming2d]) -> None:
    stack, run = recovered
    selected = np.array([summary.selected for summary in run.class_summaries()])[run.assignments().class_index]
    assert (~selected[stack.kind < 0]).mean() > 0.9
    assert (~selected[stack.kind >= 0]).mean() < 0.1


def test_poses_agree_with_the_truth_up_to_the_frame_of_the_class(recovered: tuple[Any, Streaming2d]) -> None:
    """Within a class psi differs from the truth by one angle, and the origin is minus the shift, plus a turned offset."""
    stack, run = recovered
    found = run.assignments()
    errors, distances = [], []
    for index in range(10):
        for view in range(6):
            rows = np.flatnonzero((found.class_index == index) & (stack.kind == view))
            if len(rows) < 30:
                continue
            turn = np.exp(1j * (np.deg2rad(found.psi_degrees[rows]) - stack.psi[rows]))
            frame = np.median(turn.real) + 1j * np.median(turn.imag)
            errors.extend(abs(np.angle(turn / frame, deg=True)))
            origin = np.stack([found.origin_x_angstrom[rows], found.origin_y_angstrom[rows]], axis=1)
            distances.extend(np.hypot(*(origin + stack.shift[rows]).T))
    assert len(errors) > 300
    assert np.median(errors) < 6
    assert np.median(distances) < 6  # 1.5 px; a wrong sign would give twice the shifts: 10


def test_the_likelihood_is_positive_from_the_second_step_on(tiny_stack: Any) -> None:
    """Else the references have the wrong scale."""
    run = begin()
    for block in tiny_stack.blocks(60):
        run.add_block(block)
    means = []
    while run.state.counters.step < 6:
        run.advance()
        live = run.state.live()
        means.append(run.state.particles.log_likelihood[live].mean())
    assert min(means[3:]) > 0
    assert means[-1] > means[2]


# ----------------------------------------------------------------------------------- what it does not depend on


def test_the_result_does_not_depend_on_when_blocks_arrive(
    blocks: list[ParticleBlock], uninterrupted: dict[str, np.ndarray]
) -> None:
    slow = begin()
    for number, block in enumerate(blocks):
        slow.add_block(block)
        for _ in range(3 if number % 2 else 100):
            slow.advance()
    slow.finalise()
    assert arrays_equal(slow.state.to_arrays(), uninterrupted)


def test_a_run_killed_after_every_step_ends_with_the_same_bits(
    blocks: list[ParticleBlock], uninterrupted: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes are cut into pieces of 30 here; both runs are, so that the sums group alike."""
    monkeypatch.setattr("frazil.algorithms.class2d.stream._PIECE_IMAGES", 30)
    plain, killed = begin(), begin()
    for block in blocks:
        plain.add_block(block)
        killed.add_block(block)
    plain.finalise()
    killed.request_finalise()
    steps = 0
    while killed.advance():
        checkpoint = killed.state.to_arrays()
        killed = begin(from_arrays(checkpoint, np))
        killed.load_later(by_sequence(blocks))
        assert arrays_equal(killed.state.to_arrays(), checkpoint)
        steps += 1
    assert steps > 30
    assert arrays_equal(killed.state.to_arrays(), plain.state.to_arrays())
    np.testing.assert_array_equal(plain.state.particles.uid, uninterrupted["particles.uid"])


def test_the_strict_backend_gives_the_same_classes(
    blocks: list[ParticleBlock], uninterrupted: dict[str, np.ndarray], xp: Any
) -> None:
    if xp is np:
        run = begin(from_arrays(uninterrupted, np))
        run.load_later(by_sequence(blocks))
    else:
        run = begin(xp=xp)
        for block in blocks:
            run.add_block(block)
    run.finalise()
    arrays = run.state.to_arrays()
    np.testing.assert_array_equal(arrays["particles.class_index"], uninterrupted["particles.class_index"])
    scale = abs(uninterrupted["classes.numerator"]).max()
    np.testing.assert_allclose(arrays["classes.numerator"], uninterrupted["classes.numerator"], atol=1e-3 * scale)
    assert run.class_averages().shape == (3, 32, 32)


def test_counts_add_up_at_every_step(blocks: list[ParticleBlock]) -> None:
    run = begin()
    added = 0
    for block in blocks:
        run.add_block(block)
        added += block.uid.size
        while run.advance():
            counters = run.state.counters
            assert len(run.state.particles) == added
            assert counters.cursor == block.sequence
            assert counters.taken <= added
    assert run.state.counters.taken == 110  # 50, then units of 20; ten wait
    run.finalise()
    assert run.state.counters.phase == Phase.FINISHED
    assert sum(summary.particle_count for summary in run.class_summaries()) == 120
    assert np.isclose(run.state.classes.weight.sum(), 120)
    assert not run.advance()


# -------------------------------------------------------------------------------------------------- retractions


def retracting(blocks: list[ParticleBlock], advance: bool, start: Streaming2d | None = None) -> Streaming2d:
    run = start or begin()
    for block in blocks[:6]:
        run.add_block(block)
        while advance and run.advance():
            pass
    run.retract(7, blocks[1].uid)
    while advance and run.advance():
        pass
    for shift, block in enumerate(blocks[6:]):
        run.add_block(renumbered(block, 8 + shift))
        while advance and run.advance():
            pass
    run.finalise()
    return run


def renumbered(block: ParticleBlock, sequence: int) -> ParticleBlock:
    return ParticleBlock(
        sequence=sequence,
        uid=block.uid,
        images=block.images,
        defocus_u_angstrom=block.defocus_u_angstrom,
        defocus_v_angstrom=block.defocus_v_angstrom,
        defocus_angle_degrees=block.defocus_angle_degrees,
        phase_shift_degrees=block.phase_shift_degrees,
        optics=block.optics,
    )


def test_retracted_particles_leave_the_classes(blocks: list[ParticleBlock]) -> None:
    run = retracting(blocks, advance=False)
    found = run.assignments()
    assert len(found.uid) == 105
    assert not np.isin(blocks[1].uid, found.uid).any()
    assert sum(summary.particle_count for summary in run.class_summaries()) == 105
    assert np.isclose(run.state.classes.weight.sum(), 105)


def test_when_a_retraction_arrives_does_not_matter(blocks: list[ParticleBlock]) -> None:
    fast, slow = retracting(blocks, advance=False), retracting(blocks, advance=True)
    assert arrays_equal(fast.state.to_arrays(), slow.state.to_arrays())


def test_a_particle_extracted_anew_after_its_retraction_counts(blocks: list[ParticleBlock]) -> None:
    run = begin()
    for block in blocks[:6]:
        run.add_block(block)
    run.retract(7, blocks[1].uid)
    run.add_block(renumbered(blocks[1], 8))
    run.finalise()
    found = run.assignments()
    assert len(found.uid) == 90
    assert np.isin(blocks[1].uid, found.uid).all()


def test_a_run_can_be_ended_again_after_more_particles_or_a_retraction(blocks: list[ParticleBlock]) -> None:
    """Also when they come amid the last passes."""
    run = begin()
    for block in blocks[:5]:
        run.add_block(block)
    run.request_finalise()
    while run.state.counters.phase != Phase.FINAL_PASS:
        run.advance()
    run.retract(6, blocks[0].uid)
    while run.advance():
        pass
    generation = run.state.counters.generation
    run.finalise()
    assert run.state.counters.generation == generation + TINY.final_passes
    assert np.isclose(run.state.classes.weight.sum(), 60)
    run.add_block(renumbered(blocks[5], 7))
    run.finalise()
    assert np.isclose(run.state.classes.weight.sum(), 75)
    assert len(run.assignments().uid) == 75


def test_a_resumed_run_loads_only_what_it_needs_and_never_what_was_removed(blocks: list[ParticleBlock]) -> None:
    run = retracting(blocks, advance=False)
    arrays = run.state.to_arrays()
    numbered = [*blocks[:6], *(renumbered(block, 4 + shift) for shift, block in enumerate(blocks[2:]) if shift >= 4)]
    loaded: list[int] = []

    def load(sequence: int) -> ParticleBlock:
        loaded.append(sequence)
        return by_sequence(numbered)(sequence)

    again = begin(from_arrays(arrays, np))
    again.load_later(load)
    again.finalise()
    assert loaded == []  # there was nothing left to do
    assert arrays_equal(again.state.to_arrays(), arrays)
    again.add_block(renumbered(blocks[1], 99))
    again.finalise()
    assert sorted(loaded) == sorted({block.sequence for block in numbered} - {2})  # each once, when the last passes came to it


def test_a_block_whose_images_are_lost_can_be_dropped_amid_a_pass(
    blocks: list[ParticleBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frazil.algorithms.class2d.stream._PIECE_IMAGES", 30)
    run = begin()
    for block in blocks:
        run.add_block(block)
    run.request_finalise()
    while run.state.sums is None or run.state.counters.phase != Phase.FINAL_PASS:
        run.advance()
    again = begin(from_arrays(run.state.to_arrays(), np))
    again.load_later(by_sequence([block for block in blocks if block.sequence != 2]))
    again.drop_block(2)
    again.finalise()
    assert np.isclose(again.state.classes.weight.sum(), 105)
    assert not np.isin(again.assignments().uid, blocks[1].uid).any()


# ------------------------------------------------------------------------------------------------- small things


def test_blocks_out_of_order_and_missing_images_are_refused(blocks: list[ParticleBlock]) -> None:
    run = begin()
    run.add_block(blocks[0])
    run.add_block(blocks[1])
    with pytest.raises(FrazilError, match="in order of sequence"):
        run.add_block(blocks[0])
    again = begin(from_arrays(run.state.to_arrays(), np))
    with pytest.raises(FrazilError, match="how the images"):
        again.advance()
    with pytest.raises(FrazilError, match="how the images"):
        again.add_block(blocks[2])
    again.load_later(lambda sequence: blocks[sequence % 2])  # each in the other's place
    with pytest.raises(FrazilError, match="Restore block 1"):
        again.finalise()


def test_an_incomplete_or_foreign_checkpoint_is_refused(uninterrupted: dict[str, np.ndarray]) -> None:
    with pytest.raises(FrazilError, match=r"particles\.psi"):
        from_arrays({k: v for k, v in uninterrupted.items() if k != "particles.psi"}, np)
    with pytest.raises(FrazilError, match="version 99"):
        from_arrays({**uninterrupted, "version": np.array(99)}, np)


def test_a_run_of_nothing_and_of_a_few_particles_ends(blocks: list[ParticleBlock]) -> None:
    empty = begin()
    empty.finalise()
    assert empty.class_averages().shape == (0, 32, 32)
    assert empty.class_summaries() == []
    assert empty.assignments().uid.size == 0
    few = begin()
    few.add_block(blocks[0])
    few.finalise()
    assert few.assignments().uid.size == 15
    assert len(few.class_summaries()) == 1


def test_parameters_are_checked() -> None:
    for wrong in ({"class_count": 0}, {"particle_diameter_angstrom": -1.0}, {"seed": -1}):
        with pytest.raises(FrazilError, match="Set "):
            Class2dParameters(**{"particle_diameter_angstrom": 100.0, **wrong})  # type: ignore[arg-type]


def test_half_sets_are_those_of_the_particle_model() -> None:
    uids = np.random.default_rng(0).integers(0, 2**63, 200).astype(np.uint64) * np.uint64(2)
    assert half_index(uids).tolist() == [half_set(int(uid)) - 1 for uid in uids]


def test_the_schedule_follows_the_particle_and_ends_uniform() -> None:
    parameters = Class2dParameters(particle_diameter_angstrom=185.0, max_resolution_angstrom=8.0)
    grid = Streaming2d(parameters, box_size_px=64, pixel_size_angstrom=4.4)._run.grid
    assert [class_target(parameters, n, first) for n, first in ((20, True), (300, True), (400, False), (9999, False))] == [
        1,
        10,
        10,
        50,
    ]
    assert len(shift_disc(grid, 16.0, 1.5)) == 9
    assert len(shift_disc(grid, 16.0, 2.0)) == 13
    assert angle_count(grid, parameters, 16.0) == 84
    first, last = final_plan(grid, parameters, 0), final_plan(grid, parameters, 1)
    assert (first.uniform, last.uniform, last.balance) == (False, True, 0)
    assert first.radius == pytest.approx(15.98, abs=0.01)
    assert last.radius == pytest.approx(64 / 3)


def test_removed_particles_do_not_count_for_a_unit(blocks: list[ParticleBlock]) -> None:
    """A run over particles that were all extracted anew begins as one over the new ones alone."""
    run = begin()
    for block in blocks[:3]:
        run.add_block(block)
    for number, block in enumerate(blocks[:3]):
        run.retract(4 + number, block.uid)
    for number, block in enumerate(blocks[3:7]):
        run.add_block(renumbered(block, 7 + number))
    while run.advance():
        pass
    alone = begin()
    for number, block in enumerate(blocks[3:7]):
        alone.add_block(renumbered(block, 1 + number))
    while alone.advance():
        pass
    found, expected = run.assignments(), alone.assignments()
    assert len(expected.uid) >= TINY.bootstrap_images
    np.testing.assert_array_equal(found.uid, expected.uid)
    np.testing.assert_array_equal(found.class_index, expected.class_index)


def test_a_state_of_other_parameters_is_refused(uninterrupted: dict[str, np.ndarray]) -> None:
    for change in ({"class_count": 2}, {"max_resolution_angstrom": 25.0}):
        with pytest.raises(FrazilError) as caught:
            begin(from_arrays(uninterrupted, np), parameters=replace(TINY, **change))
        assert caught.value.reason == "STATE_OF_OTHER_PARAMETERS"
    begin(from_arrays(uninterrupted, np), parameters=replace(TINY, class_count=9, mask_diameter_angstrom=90.0))


def test_classes_are_arranged_anew_once_there_are_enough_particles(blocks: list[ParticleBlock]) -> None:
    """Once, at the same place whether or not the run is interrupted; what was said of a class before counts no more."""
    parameters = replace(TINY, class_count=1)
    whole = begin(parameters=parameters)
    restarts = []
    for block in blocks:
        whole.add_block(block)
        while whole.advance():
            restarts.append(int(whole.state.restarts.max(initial=0)))
    assert (restarts[0], restarts[-1], sorted(restarts) == restarts) == (0, 1, True)
    broken = begin(parameters=parameters)
    for block in blocks:
        broken.add_block(block)
        while broken.advance():
            if broken.state.counters.renewed and broken.state.counters.phase == Phase.BOOTSTRAP:
                broken = begin(from_arrays(broken.state.to_arrays(), np), parameters=parameters)
                broken.load_later(by_sequence(blocks))
    assert arrays_equal(broken.state.to_arrays(), whole.state.to_arrays())
