"""Every file in the scheduler's lanes folder is a lane backend that keeps the contract; a new one is tested by being there."""

from __future__ import annotations

import inspect

import pytest

from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler import lanes


@pytest.fixture(params=lanes.names())
def backend(request: pytest.FixtureRequest) -> type[lanes.LaneBackend]:
    return lanes.load(request.param)


def test_the_node_backend_is_there() -> None:
    assert "node" in lanes.names()


def test_an_unknown_backend_is_refused_with_the_known_names() -> None:
    with pytest.raises(FrazilError) as caught:
        lanes.load("nodes")
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert all(name in caught.value.sentence for name in lanes.names())


def test_without_options_it_takes_some_node(backend: type[lanes.LaneBackend]) -> None:
    lane = backend("default", {})
    assert isinstance(lane.accepts("any-node"), bool)
    assert all(isinstance(glob, str) for glob in lane.node_globs())


def test_the_same_node_gets_the_same_answer(backend: type[lanes.LaneBackend]) -> None:
    lane, twin = backend("default", {}), backend("default", {})
    for node_id in ("", "a", "gpu-01", "ü", "*", "[x"):
        assert lane.accepts(node_id) == lane.accepts(node_id) == twin.accepts(node_id)


def test_an_unknown_option_is_refused_by_name(backend: type[lanes.LaneBackend]) -> None:
    with pytest.raises(FrazilError) as caught:
        backend("big", {"no_such_option": 1})
    assert caught.value.reason == "CONFIG_INVALID"
    assert "no_such_option" in caught.value.sentence
    assert "big" in caught.value.sentence


def test_it_says_what_it_is(backend: type[lanes.LaneBackend]) -> None:
    assert inspect.getdoc(inspect.getmodule(backend))
    assert inspect.getdoc(backend)


def test_node_patterns() -> None:
    lane = lanes.load("node")("big", {"nodes": ["gpu*", "login"]})
    assert [lane.accepts(name) for name in ("gpu-01", "gpu", "login", "cpu-1", "GPU-1")] == [True, True, True, False, False]
