"""What people read and programs parse; the read commands against a scheduler in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from frazil.api.event.v1 import event_pb2, event_pb2_grpc
from frazil.api.exposure.v1.exposure_pb2 import Exposure, ExposureResult, MovieFile
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages
from frazil.api.scheduler.v1 import scheduler_pb2, scheduler_pb2_grpc
from frazil.api.session.v1 import session_pb2, session_pb2_grpc
from frazil.cli import main
from frazil.cli.show import event_sentence

SESSION = session_pb2.Session(
    session_id="s1",
    name="grid7",
    state=session_pb2.Session.STATE_RUNNING,
    counts=session_pb2.SessionCounts(found=5, done=3, quarantined=1, particles=1200),
    parameters=session_pb2.SessionParameters(movie_folder="/data/grid7"),
)
WAITING = scheduler_pb2.Job(job_id="j2", session_id="s1", job_type="class2d_streaming", state=scheduler_pb2.Job.STATE_WAITING)
HELD = scheduler_pb2.GpuSlot(slot_key="GPU-1#0", node_id="n1", device_name="card", lease=scheduler_pb2.Lease(job_id="j1"))


class Facility(
    session_pb2_grpc.SessionServiceServicer, scheduler_pb2_grpc.SchedulerServiceServicer, event_pb2_grpc.EventServiceServicer
):
    """One session, one node, one job that waits."""

    def ListSessions(self, request: Any, context: Any) -> session_pb2.ListSessionsResponse:
        return session_pb2.ListSessionsResponse(sessions=[SESSION])

    def GetSession(self, request: Any, context: Any) -> session_pb2.Session:
        return SESSION

    def ListNodes(self, request: Any, context: Any) -> scheduler_pb2.ListNodesResponse:
        node = scheduler_pb2.Node(node_id="n1", state=scheduler_pb2.Node.STATE_UP, slots=[HELD])
        return scheduler_pb2.ListNodesResponse(nodes=[node])

    def ListJobs(self, request: Any, context: Any) -> scheduler_pb2.ListJobsResponse:
        running = scheduler_pb2.Job(job_id="j1", session_id="s1", job_type="preprocess", state=scheduler_pb2.Job.STATE_RUNNING)
        return scheduler_pb2.ListJobsResponse(jobs=[running, WAITING])

    def ExplainWait(self, request: Any, context: Any) -> scheduler_pb2.ExplainWaitResponse:
        blocker = scheduler_pb2.Blocker(
            slot_key="GPU-1#0", job_id="j1", job_type="preprocess", session_id="s1", indefinite=True
        )
        return scheduler_pb2.ExplainWaitResponse(
            reason="LANE_HELD", sentence="Every slot is held.", blockers=[blocker], remedy="Pause grid7."
        )

    def WatchEvents(self, request: Any, context: Any) -> Iterator[event_pb2.WatchEventsResponse]:
        for sequence in range(request.after_sequence + 1, 4):
            notice = event_pb2.Notice(level="info", sentence=f"number {sequence}")
            yield event_pb2.WatchEventsResponse(events=[event_pb2.Event(sequence=sequence, notice=notice)])


@pytest.fixture
def scheduler() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    facility = Facility()  # type: ignore[abstract]
    session_pb2_grpc.add_SessionServiceServicer_to_server(facility, server)
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(facility, server)
    event_pb2_grpc.add_EventServiceServicer_to_server(facility, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def out(arguments: str, scheduler: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*arguments.split(), "--scheduler", scheduler]) == 0
    return capsys.readouterr().out


def test_tables_say_who_holds_what(scheduler: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "3 of 5 movies, 1 failed, 1,200 particles" in out("session list", scheduler, capsys)
    assert "preprocess j1" in out("gpu list", scheduler, capsys)
    listed = out("job list", scheduler, capsys)
    assert "grid7" in listed
    assert "waiting" in listed
    explained = out("job explain j2", scheduler, capsys)
    assert "Every slot is held." in explained
    assert "held until it is paused by preprocess j1" in explained
    assert "Pause grid7." in explained
    assert "class2d_streaming waiting Every slot is held." in " ".join(out("session show grid7", scheduler, capsys).split())


def test_json_is_for_programs(scheduler: str, capsys: pytest.CaptureFixture[str]) -> None:
    (session,) = json.loads(out("session list --json", scheduler, capsys))
    assert session["state"] == "running"
    assert session["counts"]["particles"] == 1200  # a number, not a text
    (slot,) = json.loads(out("gpu list --json", scheduler, capsys))
    assert slot["lease"]["job_id"] == "j1"
    assert json.loads(out("job explain j2 --json", scheduler, capsys))["reason"] == "LANE_HELD"
    assert json.loads(out("session show grid7 --json", scheduler, capsys))["name"] == "grid7"


def test_watch_resumes_after_a_token(scheduler: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert out("session watch grid7 --until-now --after 1", scheduler, capsys).splitlines() == [
        "       2  number 2",
        "       3  number 3",
    ]
    lines = out("session watch grid7 --until-now --json", scheduler, capsys).splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3]


def test_events_in_words() -> None:
    result = ExposureResult(motion_total_angstrom=3.21, defocus_u_angstrom=12_000, defocus_v_angstrom=11_000, particle_count=7)
    exposure = Exposure(state=Exposure.STATE_DONE, file=MovieFile(relative_path="a.mrc"), result=result)
    sentence = event_sentence(event_pb2.Event(exposure=exposure))
    assert sentence == "a.mrc: motion 3.2 Å, defocus 1.15 µm, CTF no fit, 7 particles"
    exposure.result.ctf_fit_resolution_angstrom = 4.04
    assert "CTF 4.0 Å" in event_sentence(event_pb2.Event(exposure=exposure))
    classes = ClassAverages(revision=3, particle_count=1000, final=True)
    assert event_sentence(event_pb2.Event(class_averages=classes)) == "0 classes of 1,000 particles (revision 3, final)"
    assert event_sentence(event_pb2.Event(session=SESSION)) == "session grid7 is running"
    assert event_sentence(event_pb2.Event(job=WAITING)) == "class2d_streaming is waiting"
