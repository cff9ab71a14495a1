"""3D refinement through everything real but preprocessing: scheduler, agent, worker, a worker that dies as by kill -9."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from frazil.algorithms.refine3d.results import publish
from frazil.algorithms.refine3d.stream import StreamingRefinement
from frazil.api.event.v1 import event_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.api.session.v1 import session_pb2
from frazil.api.session.v1.session_pb2 import ComputeResources
from frazil.io.mrc import read_mrc, write_mrc
from frazil.primitives.symmetry import symmetry
from frazil.rpc.client import new_request_id
from frazil_reconstruct.jobs.refine3d_streaming import refine3d_parameters
from frazil_reconstruct.particle_feed import read_block
from frazil_reconstruct.start_volume import read_start_volume
from frazil_scheduler.service import Scheduler
from integration.scheduler.fakes import Client
from integration.scheduler.test_with_agent import agent
from unit.algorithms.phantom3d import BOX, DIAMETER, PIXEL, simulate, symmetric_blobs, write_shards

PARTICLES = 160
PREPROCESS = """#!{python}
import shutil, sys
from pathlib import Path
import numpy as np
from frazil.api.exposure.v1.exposure_pb2 import ExposureResult
from frazil.worker import run_worker

def run(context):
    while not context.stop_requested:
        reply = context.claim(1, wait_seconds=5.0)
        for claim in reply.claims:
            target = context.session_folder / "results" / claim.exposure.exposure_id / claim.attempt_folder
            shutil.copytree(Path("{shards}") / claim.exposure.file.relative_path, target)
            count = len(np.load(target / "particles.npy"))
            result = ExposureResult(particle_count=count, particles="particles.mrcs", particle_table="particles.npy")
            context.commit(claim, result, "0" * 64)
        if reply.drained:
            return

sys.exit(run_worker("stand-in", {{"preprocess": run}}))
"""
# The first worker is killed where the volume is complete and nobody knows it; what it worked out is lost.
RECONSTRUCT = """#!/bin/sh
export FRAZIL_FAILPOINT=worker.PublishVolume.before FRAZIL_FAILPOINT_FLAG="{folder}/killed"
exec "{program}"
"""


def programs(folder: Path, shards: Path) -> dict[str, Path]:
    real = Path(sys.executable).with_name("frazil-reconstruct")
    texts = {
        "frazil-preprocess": PREPROCESS.format(python=sys.executable, shards=shards),
        "frazil-reconstruct": RECONSTRUCT.format(folder=folder, program=real),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
    return {name: folder / name for name in texts}


async def ab_initio(client: Client) -> reconstruction_pb2.Volume:
    """Submit a short ab-initio reconstruction and return what it publishes."""
    asked = {"classes": "1", "iterations": "10", "restarts": "1"}
    request = scheduler_pb2.SubmitJobRequest(
        request_id=new_request_id(), session="grid1", job_type="abinitio", parameters=asked
    )
    head = (await client.history())[-1].sequence
    await client.scheduler.SubmitJob(request)
    call = client.events.WatchEvents(event_pb2.WatchEventsRequest(session="grid1", after_sequence=head))
    async with asyncio.timeout(80):
        async for reply in call:
            for event in reply.events:
                if event.kind == "volume_published":
                    call.cancel()
                    return event.volume
    raise AssertionError("the stream ended")


@pytest.mark.timeout(240)
async def test_a_volume_is_refined_over_a_death_of_its_worker(
    served: tuple[Scheduler, str], client: Client, movies: Path, tmp_path: Path
) -> None:
    phantom = simulate(symmetric_blobs(symmetry("O").operators), PARTICLES, snr=0.5, seed=4)
    write_shards(phantom, tmp_path / "shards", 40)
    write_mrc(tmp_path / "start.mrc", phantom.volume, PIXEL)
    wanted = session_pb2.Session(name="grid1")
    wanted.parameters.CopyFrom(
        session_pb2.SessionParameters(
            movie_folder=str(movies),
            particle_diameter_angstrom=DIAMETER,
            symmetry="O",
            seed=1,
            until="refine3d",
            initial_volume_path=str(tmp_path / "start.mrc"),
        )
    )
    wanted.compute.streaming_start = ComputeResources.STREAMING_START_ON_REQUEST
    session = await client.sessions.CreateSession(session_pb2.CreateSessionRequest(request_id=new_request_id(), session=wanted))
    await client.start("grid1")
    request = session_pb2.StartStreamingJobRequest(request_id=new_request_id(), session="grid1", job_type="refine3d_streaming")
    await client.sessions.StartStreamingJob(request)
    async with agent(served[1], tmp_path, incarnation="first", programs=programs(tmp_path, tmp_path / "shards")):
        await client.register(session.session_id, *(f"shard{number}" for number in range(1, 5)))
        await client.complete("grid1")
        await client.until("grid1", "COMPLETED", seconds=150)
        volume = await client.reconstruction.GetVolume(reconstruction_pb2.GetVolumeRequest(session="grid1"))
        from_nothing = await ab_initio(client)

    assert (volume.final, volume.particle_count, volume.box_px, volume.symmetry) == (True, PARTICLES, BOX, "O")
    assert (tmp_path / "killed").exists()
    (job,) = [job for job in await client.jobs("grid1") if job.job_type == "refine3d_streaming"]
    assert job.failures == 1
    kinds = [event.kind for event in await client.history()]
    assert kinds.count("volume_published") == from_nothing.revision == volume.revision + 1

    folder = Path(session.folder)
    assert (from_nothing.kind, from_nothing.particle_count) == (reconstruction_pb2.Volume.KIND_AB_INITIO, PARTICLES)
    assert np.ptp(read_mrc(folder / from_nothing.volume)[0]) > 0
    blocks = await client.reconstruction.ListParticleBlocks(reconstruction_pb2.ListParticleBlocksRequest(session="grid1"))
    expected = StreamingRefinement(
        refine3d_parameters(session.parameters),
        box_size_px=BOX,
        pixel_size_angstrom=PIXEL,
        start=read_start_volume(tmp_path / "start.mrc", BOX, PIXEL, 40.0),
    )
    for block in blocks.blocks:
        expected.add_block(read_block(folder, block))
    expected.finalise()
    found, _ = read_mrc(folder / volume.volume)
    np.testing.assert_allclose(found, publish(expected).volume, atol=1e-3 * np.abs(found).max())
