"""`frazil up`: every service as a process on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

CONFIG_DEFAULT = Path("frazil.toml")


def up(
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration (default: frazil.toml here, if there is one).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Ledger, sessions and logs (default: frazil-data). On a local disk.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen at; 0.0.0.0 for the network.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port of the scheduler (default 50051).")] = None,
    web_port: Annotated[
        int | None, typer.Option("--web-port", min=0, max=65535, help="Port of the page (default 8080).")
    ] = None,
    cpu_slots: Annotated[
        int | None, typer.Option("--cpu-slots", min=1, help="Slots on the processors (default: only without GPUs).")
    ] = None,
) -> None:
    """Start scheduler, ingest, agent and web on this machine, print the page's address, and keep them running."""
    from frazil.cli.services import Deployment, UpSettings
    from frazil.cli.supervise import stop_signals
    from frazil.rpc.config import read_section, read_toml

    file = config or (CONFIG_DEFAULT if CONFIG_DEFAULT.exists() else None)
    flags = {"data_dir": data_dir, "host": host, "port": port, "web_port": web_port, "cpu_slots": cpu_slots}
    settings = read_section(UpSettings, "up", flags=flags, toml=read_toml(file))
    deployment = Deployment(
        data_dir=settings.data_dir,
        host=settings.host,
        port=settings.port,
        web_port=settings.web_port,
        cpu_slots=settings.cpu_slots or None,
        config=file,
    )
    try:
        with stop_signals(), deployment.supervisor(say):
            print(f"Frazil is up.\n\n  page        {deployment.web_address}\n  scheduler   {deployment.scheduler_address}")
            print(
                f"  data        {deployment.data_dir}\n  logs        {deployment.data_dir / 'logs'}\n\nCtrl-C stops it.",
                flush=True,
            )
            wait_for_interrupt()
    except KeyboardInterrupt:
        print("Stopped.")


def wait_for_interrupt() -> None:
    """Wait until Ctrl-C or SIGTERM, then say that stopping has begun."""
    try:
        while True:
            time.sleep(3600.0)
    except KeyboardInterrupt:
        print("\nStopping; workers finish their current exposure first.", flush=True)
        raise


def say(sentence: str) -> None:
    """Print what the supervisor has to tell, with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {sentence}", flush=True)
