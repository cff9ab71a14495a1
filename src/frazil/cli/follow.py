"""Following a session to its end: progress for people, decisions that need no person."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from frazil.api.event.v1.event_pb2 import Event
from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.scheduler.v1.scheduler_pb2 import Job
from frazil.api.session.v1.session_pb2 import ScanStatus, Session
from frazil.cli.show import event_sentence, state_word
from frazil.io.atomic import write_text
from frazil.model.errors import ErrorKind, FrazilError

if TYPE_CHECKING:
    from frazil.client import Client

_POLL_SECONDS = 0.5
_LINE_SECONDS = 10.0
_WAIT_SHOWN_SECONDS = 15.0
_PAUSE_SECONDS = 120.0
_LINE_MAX = 400
_SWEEPS_MIN = 2  # the first sweep may have begun before the last file was there
_ACTIVE = frozenset({Job.STATE_WAITING, Job.STATE_STARTING, Job.STATE_RUNNING, Job.STATE_STOPPING})


def folder_is_finished(scan: ScanStatus, idle_seconds: float) -> bool:
    """Say whether no more movies are to be expected: all are complete, and nothing has changed for a while."""
    return (
        scan.sweeps >= _SWEEPS_MIN
        and scan.files_settling == 0
        and not scan.problem
        and scan.seconds_since_change >= idle_seconds
    )


class View(Protocol):
    """Shows progress."""

    def update(self, session: Session, jobs: Sequence[Job]) -> None:
        """Show where the session is now."""
        ...

    def line(self, sentence: str) -> None:
        """Say something that stays on the screen."""
        ...


class LineView:
    """Progress where there is no terminal: one line now and then, and only when something has changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._shown = ""

    def update(self, session: Session, jobs: Sequence[Job]) -> None:
        """Print a line every ten seconds at most."""
        text = progress_line(session, jobs)
        if self._clock() >= self._next and text != self._shown:
            self.line(text)
            self._next, self._shown = self._clock() + _LINE_SECONDS, text

    def line(self, sentence: str) -> None:
        """Print a line with the time."""
        print(f"{time.strftime('%H:%M:%S')}  {sentence}", flush=True)


class BarView:
    """Progress bars on a terminal; a context manager."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._movies = self._progress.add_task("movies", total=None, note="")
        self._particles = self._progress.add_task("2D particles", total=None, note="", visible=False)

    def __enter__(self) -> BarView:
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def update(self, session: Session, jobs: Sequence[Job]) -> None:
        """Move the bars."""
        counts, by_type = session.counts, {job.job_type: job for job in jobs}
        settling = f"{session.scan.files_settling} arriving" if session.scan.files_settling else ""
        failed = f"{counts.quarantined} failed" if counts.quarantined else ""
        notes = [note for note in (failed, settling) if note]
        self._progress.update(
            self._movies,
            total=max(counts.found, 1),
            completed=counts.done + counts.quarantined,
            note=", ".join(notes) or state_word(session),
        )
        classify = by_type.get("class2d_streaming")
        self._progress.update(
            self._particles,
            total=max(counts.particles, 1),
            completed=counts.particles_classified,
            visible=classify is not None and bool(counts.particles),
            note=(classify.progress or state_word(classify)) if classify is not None else "",
        )

    def line(self, sentence: str) -> None:
        """Print above the bars."""
        from rich.markup import escape

        self._progress.console.print(escape(sentence), highlight=False)


def progress_line(session: Session, jobs: Sequence[Job]) -> str:
    """Return a session's progress in one line."""
    counts = session.counts
    words = [f"{state_word(session)}: {counts.done + counts.quarantined}/{counts.found} movies"]
    words += [f"{counts.quarantined} failed"] if counts.quarantined else []
    words += [f"{session.scan.files_settling} arriving"] if session.scan.files_settling else []
    words += [f"{counts.particles:,} particles"] if counts.particles else []
    words += [f"{counts.particles_classified:,} classified"] if counts.particles_classified else []
    words += [f"{job.job_type} {state_word(job)}" for job in jobs if job.state in _ACTIVE]
    return " · ".join(words)


class EventFeed:
    """Reads the event log beside the main loop; keeps its resume token in a file."""

    def __init__(self, client: Client, session_id: str, token_file: Path) -> None:
        self._sentences: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._token_file = token_file
        text = token_file.read_text().strip() if token_file.exists() else ""
        self._token = int(text) if text.isdigit() else 0
        self._client, self._session_id = client, session_id
        self._reader = threading.Thread(target=self._read, name="events", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            self._read_from(self._token)
        except FrazilError as error:
            self._sentences.put(f"The event log cannot be followed any more: {error.sentence}")

    def _read_from(self, token: int) -> None:
        try:
            for event in self._client.events(self._session_id, after=token):
                if is_notable(event):
                    self._sentences.put(clipped(event_sentence(event)))
                self._token = event.sequence
        except FrazilError as error:
            if error.kind is not ErrorKind.EXPIRED:
                raise
            self._read_from(0)  # with the oldest that is kept; where the session stands is asked for anyway

    def join(self) -> None:
        """Wait for the end of the log, where it has one."""
        self._reader.join()

    def take(self) -> list[str]:
        """Return the sentences since the last call, and remember how far that was."""
        token, taken = self._token, []
        while not self._sentences.empty():
            taken.append(self._sentences.get())
        if token:
            write_text(self._token_file, f"{token}\n")
        return taken


def clipped(sentence: str) -> str:
    """Return one line: of a long sentence (a worker's last words) the beginning and the end, where the cause is."""
    line = " ".join(sentence.split())
    return line if len(line) <= _LINE_MAX else f"{line[: _LINE_MAX // 2]} … {line[-_LINE_MAX // 2 :]}"


def is_notable(event: Event) -> bool:
    """Say whether an event deserves a line of its own: failures and what an operator should read."""
    body = event.WhichOneof("body")
    if body == "exposure":
        return event.exposure.state == Exposure.STATE_QUARANTINED
    return body == "notice" and event.notice.level in ("warning", "error")


class Follower:
    """Follows one session until it is completed."""

    def __init__(
        self,
        client: Client,
        session_id: str,
        view: View,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._session_id = session_id
        self._view = view
        self._clock = clock
        self._sleep = sleep
        self._moved_at = clock()
        self._explained = self._reason = ""
        self._said: deque[str] = deque(maxlen=100)

    def run(self, feed: EventFeed, *, is_finished: Callable[[Session], bool], limit_seconds: float = float("inf")) -> Session:
        """Return the completed session; completes it once `is_finished` says that no more movies will come.

        Raises FrazilError TIMED_OUT after `limit_seconds`.
        """
        give_up_at = self._clock() + limit_seconds
        while True:
            session = self._client.get_session(self._session_id)
            jobs = self._client.jobs(self._session_id)
            self._view.update(session, jobs)
            for sentence in feed.take():
                self._say(sentence)
            if session.state == Session.STATE_COMPLETED:
                return session
            if session.state == Session.STATE_RUNNING and is_finished(session):
                self._client.complete(self._session_id)
            self._tell_trouble(session, jobs)
            if self._clock() > give_up_at:
                where = progress_line(session, jobs)
                raise FrazilError("TIMED_OUT", f"Not done after {limit_seconds:.0f} s ({where}).", kind=ErrorKind.UNAVAILABLE)
            self._sleep(_POLL_SECONDS)

    def _say(self, sentence: str) -> None:
        self._view.line(sentence)
        self._said.append(sentence)

    def _tell_trouble(self, session: Session, jobs: Sequence[Job]) -> None:
        if session.state_reason != self._reason:
            self._reason = session.state_reason
            told = any(sentence.startswith(self._reason[:80]) for sentence in self._said)  # a notice came before it
            if self._reason and not told:
                self._say(clipped(self._reason))
        waiting = [job for job in jobs if job.state == Job.STATE_WAITING]
        if not waiting or any(job.state in (Job.STATE_RUNNING, Job.STATE_STARTING) for job in jobs):
            self._moved_at = self._clock()
        elif self._clock() - self._moved_at > _WAIT_SHOWN_SECONDS:
            sentence = self._client.explain_wait(waiting[0].job_id).sentence
            if sentence != self._explained:
                self._view.line(f"Waiting: {sentence}")
                self._explained = sentence


def begin_session(client: Client, session_id: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Start a session afresh, whatever an interrupted run left it in: its folder is swept anew, its jobs wait again."""
    state = client.get_session(session_id).state
    if state in (Session.STATE_RUNNING, Session.STATE_COMPLETING):
        state = client.pause(session_id).state
    give_up_at = time.monotonic() + _PAUSE_SECONDS
    while state == Session.STATE_PAUSING:
        if time.monotonic() > give_up_at:
            raise FrazilError(
                "SESSION_NOT_PAUSED",
                f"The jobs of an interrupted run have not ended after {_PAUSE_SECONDS:.0f} s: see the logs, then try again.",
                kind=ErrorKind.UNAVAILABLE,
            )
        sleep(_POLL_SECONDS)
        state = client.get_session(session_id).state
    client.start(session_id)


def make_view() -> Any:
    """Return the view for this output, as a context manager."""
    import contextlib

    return BarView() if sys.stdout.isatty() else contextlib.nullcontext(LineView())
