"""What an operator is told about the GPUs at hand, for 1, 2, 3, 4 and more of them."""

from __future__ import annotations

from typing import Any

import pytest

from frazil.api.session.v1 import session_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import advice, sessions, validation
from frazil_scheduler.ledger import tables
from model.world import World


def advise(world: World, session: str = "", *, until: str = "", camera: str = "", **compute: Any) -> session_pb2.ComputeAdvice:
    parameters = session_pb2.SessionParameters(until=until, particle_diameter_angstrom=140, camera=camera)
    resources = session_pb2.ComputeResources(**compute)
    validation.fill_defaults(parameters, resources)

    def body(tx: Any) -> session_pb2.ComputeAdvice:
        row = sessions.require(tx, session) if session else None
        return advice.advise(advice.slots_for(tx, world.lanes, row), world.lanes, row, parameters, resources)

    return world.store.read(body)


def node(world: World, *memory_mib: int) -> None:
    world.hello("one", {f"GPU-{number}#0": mib for number, mib in enumerate(memory_mib)})


def waits(found: session_pb2.ComputeAdvice) -> list[str]:
    return [job.job_type for job in found.jobs if not job.slot_key]


@pytest.mark.parametrize(
    ("gpus", "workers", "waiting", "said", "better"),
    [
        (1, 1, 1, "Streaming 2D classification waits for as long as the session runs: its other jobs hold the only slot.",
         {"preprocessing_workers": 1, "alternation": {"enabled": True}}),
        (2, 1, 0, "run together on 2 slots.", None),
        (2, 2, 1, "its other jobs hold all 2 slots.", {"preprocessing_workers": 1}),
        (3, 1, 0, "1 slot stays free", None),
        (3, 3, 1, "its other jobs hold all 3 slots.", {"preprocessing_workers": 1}),
        (4, 1, 0, "2 slots stay free", None),  # one for 3D refinement, one for auxiliary jobs
        (5, 1, 0, "1 more preprocessing worker could run.", {"preprocessing_workers": 2}),
        (8, 1, 0, "4 more preprocessing workers could run.", {"preprocessing_workers": 5}),
        (8, 6, 0, "1 slot stays free", None),
    ],
)  # fmt: skip
def test_what_runs_what_waits_and_what_to_do(
    world: World, gpus: int, workers: int, waiting: int, said: str, better: dict[str, Any] | None
) -> None:
    node(world, *[24_000] * gpus)
    before = world.rows(tables.event)
    found = advise(world, preprocessing_workers=workers)
    assert (found.slots, found.free_slots) == (gpus, gpus)
    assert waits(found) == ["class2d_streaming"] * waiting
    assert said in " ".join(found.sentences)
    if better is None:
        assert not found.HasField("suggestion")
    else:
        expected = session_pb2.ComputeResources(
            preprocessing_lane="default", reconstruction_lane="default", auxiliary_lane="default", **better
        )
        assert found.suggestion == expected
        after = advise(world, preprocessing_workers=found.suggestion.preprocessing_workers, **{
            "alternation": found.suggestion.alternation} if found.suggestion.alternation.enabled else {})  # fmt: skip
        assert not after.HasField("suggestion")  # what was advised is good
    assert world.rows(tables.event) == before
    assert all(sentence.endswith(".") for sentence in found.sentences)


def test_the_most_important_comes_first_with_what_to_do_next(world: World) -> None:
    node(world, 24_000)
    assert list(advise(world).sentences) == [
        "Streaming 2D classification waits for as long as the session runs: its other jobs hold the only slot.",
        "Let the jobs take turns (alternation), or hand slots over by hand when it suits you (session switch).",
        "1 preprocessing worker runs on 1 slot.",
    ]
    turns = advise(world, alternation={"enabled": True, "update_interval_minutes": 30})
    assert turns.sentences[0] == (
        "On 1 slot the jobs take turns by themselves: streaming 2D classification waits at most about 30 min while there is "
        "something new, less while preprocessing is idle."
    )


def test_a_node_that_is_not_up_yet_is_waited_for(world: World) -> None:
    found = advise(world)
    assert {job.reason for job in found.jobs} == {"NO_NODE"}
    assert found.sentences[0].startswith("1 preprocessing worker waits: no node of lane 'default' has dialled in")
    world.store.read(lambda tx: advice.refuse_hopeless(tx, world.lanes, *request(), ["class2d_streaming"]))


def request(camera: str = "") -> tuple[session_pb2.SessionParameters, session_pb2.ComputeResources]:
    parameters = session_pb2.SessionParameters(particle_diameter_angstrom=140, camera=camera)
    resources = session_pb2.ComputeResources()
    validation.fill_defaults(parameters, resources)
    return parameters, resources


def test_a_gpu_too_small_for_the_camera_is_said_and_refused(world: World) -> None:
    node(world, 9_000, 9_000)
    world.store.read(lambda tx: advice.refuse_hopeless(tx, world.lanes, *request("k2"), []))
    with pytest.raises(FrazilError) as caught:
        world.store.read(lambda tx: advice.refuse_hopeless(tx, world.lanes, *request("k3"), []))
    assert caught.value.reason == "NO_SLOT_FITS"
    found = advise(world, camera="k3")
    assert found.sentences[0].startswith("1 preprocessing worker waits: no slot of lane 'default' is large enough")
    assert not found.HasField("suggestion")


def test_what_others_hold_is_told_from_what_the_session_holds_itself(world: World) -> None:
    node(world, 24_000, 24_000)
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    world.settle("one")
    found = advise(world, until="preprocess", preprocessing_workers=2)
    assert (found.slots, found.free_slots) == (2, 1)
    assert found.sentences[0] == (
        "1 preprocessing worker waits: of 2 slots another job holds 1, until a session is paused or a job ends."
    )
    own = advise(world, "other", until="preprocess", preprocessing_workers=2)
    assert (own.free_slots, waits(own)) == (2, [])


class Cluster:
    """A cluster's lane that has no slot now."""

    policy = object()

    def accepts(self, node_id: str) -> bool:
        return False


def test_a_clusters_lane_is_asked_when_jobs_are_queued(world: World) -> None:
    world.lanes["slurm"] = Cluster()  # type: ignore[assignment]
    lanes = {"preprocessing_lane": "slurm", "reconstruction_lane": "slurm"}
    found = advise(world, preprocessing_workers=2, **lanes)
    assert {job.reason for job in found.jobs} == {"CLUSTER_PENDING"}
    assert found.sentences[0] == (
        "2 preprocessing workers wait: the cluster of lane 'slurm' is asked for slots once the jobs are queued; when they come "
        "is for it to say."
    )
    parameters, resources = request("k3")
    resources.preprocessing_lane = "slurm"
    world.store.read(lambda tx: advice.refuse_hopeless(tx, world.lanes, parameters, resources, []))
