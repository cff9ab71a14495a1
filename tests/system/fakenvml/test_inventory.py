"""Unmodified pynvml and the real agent on a stand-in for NVIDIA's library: any number of GPUs on a machine without."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frazil.api.agent.v1.agent_pb2 import ConnectRequest, ConnectResponse, Start
from frazil.api.agent.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from frazil.rpc.server import start_server

pytestmark = pytest.mark.system

SOURCE = Path(__file__).parent.parent / "fakenvml.c"
GPUS = "NVIDIA A100:40960:1000,NVIDIA RTX 3090:24576"
UUID = "GPU-00000000-0000-0000-0000-{:012d}"


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "these tests need a C compiler: install gcc"
    folder = tmp_path_factory.mktemp("nvml")
    output = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(output), str(SOURCE)], check=True)
    return folder


def environ(library_folder: Path, gpus: str, **more: str) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return base | {"LD_LIBRARY_PATH": str(library_folder), "FAKE_GPUS": gpus, **more}


def ask(library_folder: Path, gpus: str, expression: str) -> Any:
    imports = "import json\nfrom frazil.agent.inventory import visible_gpus\nfrom frazil.agent.nvml import Nvml\n"
    code = f"{imports}n = Nvml()\nprint(json.dumps({expression}))"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environ(library_folder, gpus), capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_names_uuids_and_memory(library_folder: Path) -> None:
    found = ask(library_folder, GPUS, "[(g.uuid, g.name, g.memory_mib) for g in n.gpus()]")
    assert found == [[UUID.format(0), "NVIDIA A100", 40960], [UUID.format(1), "NVIDIA RTX 3090", 24576]]


def test_memory_in_use(library_folder: Path) -> None:
    expression = f"[n.used_mib('{UUID.format(0)}'), n.free_mib('{UUID.format(0)}'), n.used_mib('GPU-none')]"
    assert ask(library_folder, GPUS, expression) == [1000, 39960, None]


def test_driver_without_gpus(library_folder: Path) -> None:
    assert ask(library_folder, "", "list(n.gpus())") == []


def test_sixty_four_gpus(library_folder: Path) -> None:
    assert ask(library_folder, ",".join(["NVIDIA H200:143771"] * 64), "len({g.uuid for g in n.gpus()})") == 64


class Scheduler(AgentServiceServicer):
    def __init__(self) -> None:
        self.got: asyncio.Queue[ConnectRequest] = asyncio.Queue()
        self.orders: asyncio.Queue[ConnectResponse] = asyncio.Queue()

    async def Connect(self, requests: Any, context: Any) -> AsyncIterator[ConnectResponse]:
        async def read() -> None:
            async for request in requests:
                self.got.put_nowait(request)

        reader = asyncio.create_task(read())
        try:
            while True:
                yield await self.orders.get()
        finally:
            reader.cancel()


async def test_agent_reports_slots_and_hands_out_one_gpu(library_folder: Path, tmp_path: Path) -> None:
    toy = tmp_path / "bin" / "frazil-toy"
    toy.parent.mkdir()
    toy.write_text(
        "#!/bin/sh\necho device=$FRAZIL_DEVICE visible=$CUDA_VISIBLE_DEVICES memory=$FRAZIL_MEMORY_MIB >&2\nexit 0\n"
    )
    toy.chmod(0o755)
    scheduler = Scheduler()
    server = await start_server([lambda s: add_AgentServiceServicer_to_server(scheduler, s)], [], "127.0.0.1:0")
    command = [sys.executable, "-m", "frazil.agent", "--scheduler", f"127.0.0.1:{server.port}", "--node-id", "box"]
    command += ["--programs", "frazil-toy", "--slots-per-gpu", "2", "--lock-dir", str(tmp_path / "locks")]
    path = f"{toy.parent}:{os.environ['PATH']}"
    agent = await asyncio.create_subprocess_exec(*command, env=environ(library_folder, GPUS, PATH=path))
    try:
        async with asyncio.timeout(30):
            hello = (await scheduler.got.get()).hello
            assert [(s.slot_key, s.device_name, s.memory_mib) for s in hello.slots] == [
                (f"{UUID.format(0)}#0", "NVIDIA A100", 19980),
                (f"{UUID.format(0)}#1", "NVIDIA A100", 19980),
                (f"{UUID.format(1)}#0", "NVIDIA RTX 3090", 12288),
                (f"{UUID.format(1)}#1", "NVIDIA RTX 3090", 12288),
            ]
            scheduler.orders.put_nowait(
                ConnectResponse(
                    term=1,
                    start=Start(lease_id="l", epoch=1, slot_key=f"{UUID.format(1)}#1", program="frazil-toy", memory_mib=12288),
                )
            )
            seen: dict[str, ConnectRequest] = {}
            while "proved_free" not in seen:
                message = await scheduler.got.get()
                seen[str(message.WhichOneof("message"))] = message
        assert seen["exited"].exited.log_tail == f"device=gpu visible={UUID.format(1)} memory=12288\n"
        assert seen["proved_free"].proved_free.problem == ""
    finally:
        agent.terminate()
        assert await agent.wait() == 0
        await server.stop(0.0)
