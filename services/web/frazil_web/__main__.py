"""`frazil-web`: serves the page and its API for one scheduler.

Exit codes: 0 stopped, 2 bad configuration or address in use.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from frazil.model.errors import ErrorKind, FrazilError
from frazil.rpc.config import read_section, read_toml, scheduler_address
from frazil.rpc.logging import configure_logging
from frazil_web.app import create_app, hosts_for
from frazil_web.scheduler import Scheduler

EXIT_USAGE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Section [web] of frazil.toml."""

    address: str = "127.0.0.1:8080"  # "host:port"; port 0 takes a free one
    allowed_hosts: tuple[str, ...] = ()  # Host names to answer to; empty: loopback names on a loopback address, else any


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    try:
        toml = read_toml(options.config)
        flags = {"address": options.address, "allowed_hosts": options.allowed_host}
        settings = read_section(WebSettings, "web", flags=flags, toml=toml)
        scheduler = scheduler_address(options.scheduler, toml=toml)
        host, port = split_address(settings.address)
        hosts = settings.allowed_hosts or hosts_for(host)
        listener = listen(host, port)
        configure_logging("web", level=options.log_level)
        shown = f"[{host}]" if ":" in host else host
        structlog.get_logger().info("page_served", page=f"http://{shown}:{listener.getsockname()[1]}", scheduler=scheduler)
        asyncio.run(_serve(scheduler, hosts, listener))
    except FrazilError as error:
        sys.stderr.write(f"frazil-web: {error.sentence}\n")
        sys.exit(EXIT_USAGE)


async def _serve(scheduler: str, hosts: Sequence[str], listener: socket.socket) -> None:
    """Serve until signalled. The connection to the scheduler belongs to the loop that runs here."""
    app = create_app(Scheduler(scheduler), allowed_hosts=hosts)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=5
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has ended: that is a normal end
        signal.signal(number, lambda *_: None)
    await _Server(config, app.state.closing).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that tells the event streams, which never end by themselves, that it is about to stop."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop."""
        self._closing.set()
        super().handle_exit(sig, frame)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[::1]:port"; raises FrazilError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise FrazilError("ADDRESS_INVALID", f"{address!r} is no address to listen at; write it as 127.0.0.1:8080.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises FrazilError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise FrazilError(
            "ADDRESS_IN_USE",
            f"Cannot listen at {host}:{port} ({error.strerror}): stop the program that uses it, or choose another --address.",
            kind=ErrorKind.CONFLICT,
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="frazil-web", description="Serve Frazil's page for one scheduler.")
    parser.add_argument("--scheduler", metavar="HOST:PORT", help="where the scheduler listens (FRAZIL_SCHEDULER_ADDRESS)")
    parser.add_argument("--address", metavar="HOST:PORT", help=f"where to listen (default {WebSettings().address})")
    parser.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="answer only to this Host name; repeatable (default: loopback names on a loopback address, else any)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="frazil.toml")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


if __name__ == "__main__":
    main()
