"""Where a ledger lies: every test that takes one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import postgresql
from clusters.real_kubernetes import control_plane

MEMORY_FOLDER = Path("/dev/shm")
PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """The one server of this run; without its programs the tests that ask for it are skipped."""
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip(f"PostgreSQL {postgresql.VERSION_MIN} or newer is not installed (Debian: apt-get install postgresql)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with postgresql.serving(programs, port) as server:
        yield server


@pytest.fixture(scope="session")
def real_kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a control plane of the real programs, which tests/system/infra/k8s/build.sh makes."""
    folder = os.environ.get("FRAZIL_TEST_KUBERNETES")
    if not folder:
        pytest.skip("FRAZIL_TEST_KUBERNETES names no folder of tests/system/infra/k8s/build.sh")
    with control_plane(Path(folder) / "bin", tmp_path_factory.mktemp("kubernetes")) as kubeconfig:
        yield kubeconfig


@pytest.fixture(params=["sqlite", "postgresql"])
def new_ledger(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Make the path or URL of an empty ledger."""
    if request.param == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        yield server.new_ledger
        return
    numbers = itertools.count(1)
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None) as folder:
        yield lambda: f"{folder}/ledger{next(numbers)}.sqlite"


@pytest.fixture
def ledger(new_ledger: Callable[[], str]) -> str:
    """The path or URL of an empty ledger."""
    return new_ledger()


@pytest.fixture
def more_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the job types of `tests/plugins/more_jobs.py`."""
    monkeypatch.syspath_prepend(str(PLUGINS))
