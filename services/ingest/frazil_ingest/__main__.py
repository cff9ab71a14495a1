"""`frazil-ingest`: follows the folders of running sessions and registers their movies.

Exit codes: 0 stopped, 2 bad configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from frazil.model.errors import FrazilError
from frazil.rpc.client import open_aio_channel
from frazil.rpc.config import read_section, read_toml, scheduler_address
from frazil.rpc.logging import configure_logging
from frazil.rpc.server import until_signalled
from frazil_ingest.follow import Ingest, IngestSettings

EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the service until it is told to stop."""
    options = _parser().parse_args(arguments)
    configure_logging("frazil-ingest")
    try:
        toml = read_toml(options.config)
        settings = read_section(IngestSettings, "ingest", flags=vars(options), toml=toml)
        asyncio.run(_serve(settings, scheduler_address(options.scheduler, toml=toml)))
    except FrazilError as error:
        structlog.get_logger().error("ingest_not_started", reason=error.reason, sentence=error.sentence)
        sys.exit(EXIT_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("frazil-ingest", description="Finds the movies of running sessions and registers them.")
    parser.add_argument("--scheduler", metavar="HOST:PORT", help="where the scheduler listens (FRAZIL_SCHEDULER_ADDRESS)")
    parser.add_argument("--settle-seconds", type=float, metavar="S", help="a movie must stand still so long (default: 3)")
    parser.add_argument(
        "--defect-after-seconds",
        type=float,
        metavar="S",
        help="an incomplete movie that stands still so long is registered as defective (default: 20)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="frazil.toml")
    return parser


async def _serve(settings: IngestSettings, address: str) -> None:
    structlog.get_logger().info("ingest_started", scheduler=address)
    async with open_aio_channel(address) as channel:
        ingest = asyncio.create_task(Ingest(channel, settings).run())
        stop = asyncio.create_task(until_signalled())
        await asyncio.wait([ingest, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in (ingest, stop):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await ingest


if __name__ == "__main__":
    main()
