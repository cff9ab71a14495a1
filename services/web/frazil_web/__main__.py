"""`frazil-web`: serves the page and its API for one scheduler."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import structlog
import uvicorn

from frazil.model.errors import FrazilError
from frazil.rpc.logging import configure_logging
from frazil_web.app import create_app, hosts_for
from frazil_web.scheduler import Scheduler


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    try:
        host, port = split_address(options.address)
        hosts = options.allowed_host or hosts_for(host)
        app = create_app(Scheduler(options.scheduler), allowed_hosts=hosts)
    except FrazilError as error:
        sys.exit(f"frazil-web: {error.sentence}")
    configure_logging("web", level=options.log_level)
    structlog.get_logger().info("page_served", address=f"http://{options.address}", scheduler=options.scheduler)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,  # event streams never end by themselves
    )


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[::1]:port"; raises FrazilError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise FrazilError("ADDRESS_INVALID", f"{address!r} is no address to listen at; write it as 127.0.0.1:8080.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="frazil-web", description="Serve Frazil's page for one scheduler.")
    scheduler = os.environ.get("FRAZIL_SCHEDULER_ADDRESS", "127.0.0.1:50051")
    parser.add_argument("--scheduler", default=scheduler, metavar="HOST:PORT", help="where the scheduler answers (%(default)s)")
    parser.add_argument("--address", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to listen (%(default)s)")
    parser.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="answer only to this Host name; repeatable (default: loopback names on a loopback address, else any)",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


if __name__ == "__main__":
    main()
