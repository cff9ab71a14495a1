"""The client against a scheduler that breaks off, restarts and repeats itself."""

from __future__ import annotations

import itertools
from typing import Any

import grpc
import pytest

from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.client import Client
from frazil.model.errors import ErrorKind, FrazilError


def no_sleep(_: float) -> None:
    """Do not wait."""


@pytest.mark.parametrize(
    "cut", [None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED]
)
def test_events_arrive_once_and_in_order_however_the_stream_is_cut(scheduler: Any, cut: grpc.StatusCode | None) -> None:
    scheduler.ledger.event_count = 50
    scheduler.ledger.cut_after = 7
    scheduler.ledger.cut = cut
    with Client(scheduler.address) as client:
        received = [event.sequence for event in itertools.islice(client.events(after=3, sleep=no_sleep), 47)]
    assert received == list(range(4, 51))
    assert len(scheduler.ledger.asked_after) > 5


def test_events_survive_a_restart_of_the_scheduler(scheduler: Any) -> None:
    scheduler.ledger.event_count = 5
    with Client(scheduler.address) as client:
        events = client.events(sleep=no_sleep)
        first = [next(events).sequence for _ in range(5)]
        scheduler.stop()
        scheduler.ledger.event_count = 9
        scheduler.start()
        second = [next(events).sequence for _ in range(4)]
    assert first + second == list(range(1, 10))
    assert scheduler.ledger.asked_after[-1] == 5


def test_until_now_ends_at_the_newest_event(scheduler: Any) -> None:
    scheduler.ledger.event_count = 3
    with Client(scheduler.address) as client:
        assert [event.sequence for event in client.events(until_now=True)] == [1, 2, 3]


def test_an_answer_that_is_an_error_is_not_asked_again(scheduler: Any) -> None:
    scheduler.ledger.event_count = 9
    scheduler.ledger.cut_after = 2
    scheduler.ledger.cut = grpc.StatusCode.NOT_FOUND
    with Client(scheduler.address) as client, pytest.raises(FrazilError) as raised:
        list(client.events("unknown", sleep=no_sleep))
    assert raised.value.kind is ErrorKind.NOT_FOUND
    assert len(scheduler.ledger.asked_after) == 1


def test_an_unreachable_scheduler_ends_the_patience(scheduler: Any) -> None:
    scheduler.stop()
    with Client(scheduler.address) as client, pytest.raises(FrazilError) as raised:
        next(client.events(patience_seconds=0.0, sleep=no_sleep))
    assert raised.value.reason == "SCHEDULER_UNREACHABLE"
    with Client(scheduler.address, patience_seconds=0.0) as client, pytest.raises(FrazilError) as raised:
        client.get_session("known")
    assert raised.value.reason == "SCHEDULER_UNREACHABLE"


def test_closing_the_client_ends_a_stream(scheduler: Any) -> None:
    scheduler.ledger.event_count = 2
    client = Client(scheduler.address)
    events = client.events()
    assert next(events).sequence == 1
    client.close()
    assert [event.sequence for event in events] in ([], [2])


def test_a_repeated_request_keeps_its_id(scheduler: Any) -> None:
    scheduler.ledger.unavailable_answers = 2
    with Client(scheduler.address) as client:
        session = client.create_session("grid-7", SessionParameters(movie_folder="/data", particle_diameter_angstrom=140.0))
    assert session.parameters.particle_diameter_angstrom == 140.0
    assert len(scheduler.ledger.request_ids) == 3
    assert len(set(scheduler.ledger.request_ids)) == 1


def test_exposures_pages_through_all_of_them(scheduler: Any) -> None:
    scheduler.ledger.exposure_count = 1203
    with Client(scheduler.address) as client:
        assert [exposure.number for exposure in client.exposures("known")] == list(range(1, 1204))
    assert scheduler.ledger.exposure_pages == 3


def test_no_classes_yet_is_none_but_an_unknown_session_is_an_error(scheduler: Any) -> None:
    with Client(scheduler.address) as client:
        assert client.class_averages("known") is None
        with pytest.raises(FrazilError) as raised:
            client.class_averages("unknown")
    assert raised.value.kind is ErrorKind.NOT_FOUND
