"""`frazil-web` as a process: it serves, follows events, and ends when told to, streams or not."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import httpx

from integration.web.fake_scheduler import FakeScheduler


async def test_the_program_serves_and_ends(ledger: FakeScheduler) -> None:
    await ledger.add_session("grid7")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "frazil_web", "--scheduler", ledger.address, "--address", "127.0.0.1:0"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        line = json.loads(await asyncio.wait_for(process.stderr.readline(), 60))
        async with httpx.AsyncClient(base_url=line["page"], timeout=20) as client:
            page = await client.get("/")
            assert page.status_code == 200
            script = page.text.split('src="')[1].split('"')[0]
            assert (await client.get(script)).headers["content-type"].startswith("text/javascript")
            sessions = (await client.get("/api/sessions")).json()["sessions"]
            assert [session["name"] for session in sessions] == ["grid7"]
            async with client.stream("GET", "/api/events?after=0") as stream:
                lines = stream.aiter_lines()
                while "session_created" not in await anext(lines):
                    pass
                process.send_signal(signal.SIGTERM)  # while the stream is open
                assert await asyncio.wait_for(process.wait(), 20) == 0
                await stream.aclose()
        assert await process.stderr.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_taken_address_is_said_in_one_sentence(ledger: FakeScheduler) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "frazil_web", "--address", ledger.address, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert errors.decode().count("\n") == 1
    assert "choose another --address" in errors.decode()
