"""Following a session: when a folder is finished, what is said, how an interrupted run is taken up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from frazil.api.event.v1.event_pb2 import Event, Notice
from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile
from frazil.api.scheduler.v1.scheduler_pb2 import ExplainWaitResponse, Job
from frazil.api.session.v1.session_pb2 import ComputeResources, ScanStatus, Session, SessionCounts, SessionParameters
from frazil.cli.follow import (
    EventFeed,
    Follower,
    LineView,
    begin_session,
    clipped,
    folder_is_finished,
    is_notable,
    progress_line,
)
from frazil.cli.run import find_or_create
from frazil.model.errors import ErrorKind, FrazilError


@pytest.mark.parametrize(
    ("scan", "finished"),
    [
        (ScanStatus(sweeps=2, files_seen=5, seconds_since_change=15.0), True),
        (ScanStatus(sweeps=1, files_seen=5, seconds_since_change=15.0), False),
        (ScanStatus(sweeps=9, files_seen=5, files_settling=1, seconds_since_change=99.0), False),
        (ScanStatus(sweeps=9, files_seen=5, seconds_since_change=14.9), False),
        (ScanStatus(sweeps=9, files_seen=5, seconds_since_change=99.0, problem="unmounted"), False),
        (ScanStatus(), False),
    ],
)
def test_a_folder_is_finished_when_all_is_whole_and_still(scan: ScanStatus, finished: bool) -> None:
    assert folder_is_finished(scan, 15.0) is finished


class FakeClient:
    """Gives one state after the other; remembers what it was asked to do."""

    def __init__(self, states: Sequence[Session], jobs: Sequence[Job] = ()) -> None:
        self._states: Iterator[Session] = iter(states)
        self._jobs = jobs
        self.done: list[str] = []
        self.forgotten = 0  # the newest event that is no longer kept

    def get_session(self, _: str) -> Session:
        return next(self._states)

    def jobs(self, _: str) -> Sequence[Job]:
        return self._jobs

    def explain_wait(self, job_id: str) -> ExplainWaitResponse:
        return ExplainWaitResponse(sentence=f"{job_id} waits for a slot.")

    def complete(self, _: str) -> Session:
        self.done.append("complete")
        return Session()

    def pause(self, _: str) -> Session:
        self.done.append("pause")
        return Session(state=Session.STATE_PAUSING)

    def start(self, _: str) -> Session:
        self.done.append("start")
        return Session()

    def create_session(self, name: str, parameters: SessionParameters, compute: ComputeResources) -> Session:
        self.done.append("create")
        return Session(session_id="new", name=name, parameters=parameters)

    def events(self, _: str, *, after: int) -> Iterator[Event]:
        if 0 < after < self.forgotten:
            raise FrazilError("EVENTS_FORGOTTEN", "They are no longer kept.", kind=ErrorKind.EXPIRED)
        failed = Exposure(state=Exposure.STATE_QUARANTINED, failure="it is empty", file=MovieFile(relative_path="b.mrc"))
        for sequence, exposure in ((1, Exposure(state=Exposure.STATE_DONE)), (2, failed), (3, Exposure())):
            if sequence > max(after, self.forgotten):
                yield Event(sequence=sequence, exposure=exposure)


class Lines:
    """A view that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, session: Session, jobs: Sequence[Job]) -> None:
        """Show nothing."""

    def line(self, sentence: str) -> None:
        self.lines.append(sentence)


class NoFeed:
    """A feed without events."""

    def take(self) -> list[str]:
        return []


def running(**more: Any) -> Session:
    return Session(state=Session.STATE_RUNNING, **more)


def test_a_session_is_completed_once_and_followed_to_its_end() -> None:
    states = [running(), running(counts=SessionCounts(found=1)), Session(state=Session.STATE_COMPLETING)]
    client = FakeClient([*states, Session(state=Session.STATE_COMPLETED)])
    follower = Follower(client, "s", Lines(), sleep=lambda _: None)  # type: ignore[arg-type]
    last = follower.run(NoFeed(), is_finished=lambda session: session.counts.found == 1)  # type: ignore[arg-type]
    assert last.state == Session.STATE_COMPLETED
    assert client.done == ["complete"]


def test_what_needs_attention_and_what_waits_is_said_once() -> None:
    waiting = [Job(job_id="j1", state=Job.STATE_WAITING)]
    states = [running(), running(state_reason="The disk is full."), running(state_reason="The disk is full."), running()]
    client = FakeClient([*states, Session(state=Session.STATE_COMPLETED)], waiting)
    seconds = iter(range(0, 1000, 10))
    view = Lines()
    follower = Follower(client, "s", view, clock=lambda: next(seconds), sleep=lambda _: None)  # type: ignore[arg-type]
    follower.run(NoFeed(), is_finished=lambda _: False)  # type: ignore[arg-type]
    assert sorted(view.lines) == ["The disk is full.", "Waiting: j1 waits for a slot."]


def test_a_limit_ends_with_where_it_was() -> None:
    client = FakeClient([running(counts=SessionCounts(found=7, done=3))] * 9)
    seconds = iter(range(0, 1000, 10))
    follower = Follower(client, "s", Lines(), clock=lambda: next(seconds), sleep=lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(FrazilError) as raised:
        follower.run(NoFeed(), is_finished=lambda _: False, limit_seconds=30)  # type: ignore[arg-type]
    assert raised.value.reason == "TIMED_OUT"
    assert "3/7 movies" in raised.value.sentence


@pytest.mark.parametrize(
    ("states", "done"),
    [
        ([Session.STATE_PAUSED], ["start"]),
        ([Session.STATE_COMPLETED], ["start"]),
        ([Session.STATE_RUNNING, Session.STATE_PAUSING, Session.STATE_PAUSED], ["pause", "start"]),
        ([Session.STATE_COMPLETING, Session.STATE_PAUSED], ["pause", "start"]),
        ([Session.STATE_PAUSING, Session.STATE_PAUSED], ["start"]),
    ],
)
def test_an_interrupted_session_is_started_afresh(states: list[Session.State.ValueType], done: list[str]) -> None:
    client = FakeClient([Session(state=state) for state in states])
    begin_session(client, "s", sleep=lambda _: None)  # type: ignore[arg-type]
    assert client.done == done


def test_the_feed_tells_failures_and_remembers_how_far_it_was(tmp_path: Path) -> None:
    token = tmp_path / "token"
    feed = EventFeed(FakeClient([]), "s", token)  # type: ignore[arg-type]
    feed.join()
    assert feed.take() == ["failed: b.mrc: it is empty"]
    assert token.read_text() == "3\n"
    again = EventFeed(FakeClient([]), "s", token)  # type: ignore[arg-type]
    again.join()
    assert again.take() == []


def test_the_feed_goes_on_with_the_oldest_event_that_is_kept(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("1\n")
    client = FakeClient([])
    client.forgotten = 2
    feed = EventFeed(client, "s", token)  # type: ignore[arg-type]
    feed.join()
    assert feed.take() == []
    assert token.read_text() == "3\n"


def test_only_what_matters_is_notable() -> None:
    assert is_notable(Event(notice=Notice(level="warning", sentence="x")))
    assert not is_notable(Event(notice=Notice(level="info", sentence="x")))
    assert not is_notable(Event(job=Job(state=Job.STATE_FAILED)))  # the session's own reason says it, once
    assert not is_notable(Event())


def test_last_words_are_clipped_to_a_line() -> None:
    words = clipped("It died:\n" + "frame\n" * 500 + "ModuleNotFoundError: no module")
    assert words.startswith("It died: frame")
    assert words.endswith("ModuleNotFoundError: no module")
    assert len(words) < 420
    assert clipped("short") == "short"


def test_the_line_view_is_quiet_when_nothing_changes(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([0.0, 0.0, 5.0, 20.0, 40.0, 40.0])
    view = LineView(clock=lambda: next(seconds))
    first, second = running(counts=SessionCounts(found=2)), running(counts=SessionCounts(found=2, done=1, quarantined=1))
    view.update(first, [])
    view.update(second, [])  # too soon
    view.update(first, [])  # unchanged
    view.update(second, [Job(job_type="preprocess", state=Job.STATE_RUNNING)])
    lines = capsys.readouterr().out.splitlines()
    assert [line[10:] for line in lines] == ["running: 0/2 movies", "running: 2/2 movies · 1 failed · preprocess running"]


def test_progress_says_what_is_known() -> None:
    counts = SessionCounts(found=10, done=4, particles=1234, particles_classified=1000)
    session = running(counts=counts, scan=ScanStatus(files_settling=2))
    assert progress_line(session, []) == "running: 4/10 movies · 2 arriving · 1,234 particles · 1,000 classified"


def test_other_parameters_are_named_and_refused() -> None:
    first = SessionParameters(movie_folder="/data", particle_diameter_angstrom=140.0, class_count=50)
    client = FakeClient([Session(session_id="s1", parameters=first)] * 2)
    same = find_or_create(client, first, ComputeResources(), Path("out"))  # type: ignore[arg-type]
    assert same == "s1"
    other = SessionParameters(movie_folder="/data", particle_diameter_angstrom=160.0, class_count=50, pixel_size_angstrom=1.06)
    with pytest.raises(FrazilError) as raised:
        find_or_create(client, other, ComputeResources(), Path("out"))  # type: ignore[arg-type]
    assert raised.value.kind is ErrorKind.INVALID
    assert "particle diameter angstrom was 140, is 160" in raised.value.sentence
    assert "pixel size angstrom was not given, is 1.06" in raised.value.sentence
    assert "another --output" in raised.value.sentence
