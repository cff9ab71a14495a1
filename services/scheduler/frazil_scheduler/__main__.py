"""`frazil-scheduler`: runs the scheduler until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Mapping, Sequence

import structlog

from frazil.model.errors import FrazilError
from frazil.rpc.config import read_section, read_toml
from frazil.rpc.logging import configure_logging
from frazil.rpc.server import until_signalled
from frazil_scheduler.config import LaneSettings, Settings, read_lanes
from frazil_scheduler.ledger.database import check_database
from frazil_scheduler.service import running

# The ledger's thread lets go of the interpreter at every statement. With Python's 5 ms it would wait as long to get it back,
# many times in a transaction, whenever the event loop is busy.
SWITCH_SECONDS = 0.0005


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="frazil-scheduler", description="Frazil's scheduler: the one ledger.")
    parser.add_argument("--config", help="frazil.toml; without it everything has a default")
    parser.add_argument("--data-dir", help="folder that holds a folder per session, and the ledger (default frazil-data)")
    parser.add_argument(
        "--ledger",
        help="database file on a local disk, or postgresql://user@host/database (default ledger.sqlite in the data folder)",
    )
    parser.add_argument("--address", help='where to listen, "host:port"; port 0 takes a free one (default 127.0.0.1:50051)')
    parser.add_argument("--check-ledger", action="store_true", help="say whether the ledger can be used, then end")
    return parser


def read_settings(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[Settings, tuple[LaneSettings, ...]]:
    """Return what flags, environment and file say, in this order. Raises FrazilError."""
    given = _parser().parse_args(arguments)
    toml = read_toml(given.config or environ.get("FRAZIL_CONFIG") or None)
    flags = {
        "data_dir": given.data_dir or environ.get("FRAZIL_DATA_DIR") or None,
        "ledger": given.ledger,
        "address": given.address,
    }
    return read_section(Settings, "scheduler", flags=flags, environ=environ, toml=toml), read_lanes(toml)


async def serve(settings: Settings, lanes: Sequence[LaneSettings]) -> None:
    """Run until SIGTERM or SIGINT, or until another scheduler has taken over the ledger."""
    async with running(settings, lanes) as (scheduler, address):
        gc.freeze()  # a full collection walks every live object, 80 ms in which nothing else runs; what is here now stays
        structlog.get_logger().info(
            "scheduler_ready",
            address=address,
            data_dir=str(scheduler.hub.data_dir),
            ledger=scheduler.store.name,
            term=scheduler.store.term,
        )
        signalled = asyncio.create_task(until_signalled())
        ends = [task for task in (signalled, scheduler.keeper) if task is not None]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        structlog.get_logger().info("scheduler_draining")


def main() -> None:
    """Run the program; a fault is one sentence and exit code 2."""
    configure_logging("scheduler")
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        settings, lanes = read_settings(sys.argv[1:], os.environ)
        if _parser().parse_args(sys.argv[1:]).check_ledger:
            sys.stdout.write(f"{check_database(settings.ledger_place)}\n")
        else:
            asyncio.run(serve(settings, lanes))
    except FrazilError as error:
        sys.stderr.write(f"frazil-scheduler: {error.sentence}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
