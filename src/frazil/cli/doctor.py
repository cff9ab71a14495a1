"""`frazil doctor`: is this machine fit, and what to do where it is not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from frazil.cli.options import JsonOption

_SQLITE_MIN = (3, 38, 0)
_PROGRAMS = ("frazil-scheduler", "frazil-ingest", "frazil-agent", "frazil-preprocess", "frazil-reconstruct", "frazil-web")
_LIBRARIES = ("numpy", "scipy", "numba", "mrcfile", "tifffile", "imagecodecs", "grpcio", "protobuf", "pillow")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `state` is "ok", "warn" or "fail"; `advice` is empty when nothing need be done."""

    what: str
    state: str
    found: str
    advice: str = ""


def doctor(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where the ledger and the sessions would lie.")] = Path(),
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration (default: frazil.toml here, if there is one).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check Python, libraries, processors, memory, GPU, ports, disk and ledger; says what to do."""
    import json

    findings = [finding for check in checks(data_dir, config) for finding in check()]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        _print(findings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def checks(data_dir: Path, config: Path | None) -> list[Callable[[], Iterator[Finding]]]:
    """Return what is looked at, in order."""
    places = [lambda: _disk(data_dir), lambda: _ledger(data_dir, config)]
    return [_python, _libraries, _programs, _machine, _gpus, _cupy, _sqlite, _ports, *places, _locks]


def _python() -> Iterator[Finding]:
    fit = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if fit else "fail", platform.python_version(), "" if fit else "install Python 3.11 or newer")


def _libraries() -> Iterator[Finding]:
    from importlib import metadata

    versions, missing = [], []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding(
        "libraries",
        "fail" if missing else "ok",
        ", ".join(versions),
        f"missing: {', '.join(missing)}; pip install 'frazil[cli,compute]'" if missing else "",
    )


def _programs() -> Iterator[Finding]:
    beside = Path(sys.executable).parent
    missing = [name for name in _PROGRAMS if not (beside / name).is_file() and shutil.which(name) is None]
    found = f"{len(_PROGRAMS) - len(missing)} of {len(_PROGRAMS)} installed"
    advice = f"missing: {', '.join(missing)}; in a checkout: make setup" if missing else ""
    yield Finding("services", "fail" if missing else "ok", found, advice)


def _machine() -> Iterator[Finding]:
    from frazil.agent.inventory import core_count, host_memory_mib

    cores, memory = core_count(), host_memory_mib()
    yield Finding("processors", "ok" if cores >= 2 else "warn", f"{cores} cores", "" if cores >= 2 else "expect half the speed")
    few = memory < 6 * 1024
    yield Finding("memory", "warn" if few else "ok", f"{memory:,} MiB", "8 GiB let K3 movies be processed" if few else "")


def _gpus() -> Iterator[Finding]:
    from frazil.agent.inventory import visible_gpus
    from frazil.agent.nvml import Nvml

    gpus = visible_gpus(Nvml().gpus(), os.environ)
    if not gpus:
        yield Finding("gpu", "warn", "none seen", "Frazil runs on the processors; for a GPU install NVIDIA's driver")
    for gpu in gpus:
        few = gpu.memory_mib < 8 * 1024
        advice = "preprocessing of large movies needs 8 GiB" if few else ""
        yield Finding("gpu", "warn" if few else "ok", f"{gpu.name}, {gpu.memory_mib:,} MiB ({gpu.uuid})", advice)


def _cupy() -> Iterator[Finding]:
    from importlib import metadata

    from frazil.agent.nvml import Nvml

    needed = bool(Nvml().gpus())
    found = next((one for one in metadata.distributions() if (one.metadata["Name"] or "").startswith("cupy-cuda")), None)
    if found is not None:
        yield Finding("cupy", "ok", f"{found.metadata['Name']} {found.version}")
    elif needed:
        yield Finding("cupy", "warn", "not installed", "the GPU is not used without it: pip install 'frazil[cuda12]'")
    else:
        yield Finding("cupy", "ok", "not installed, not needed without a GPU")


def _sqlite() -> Iterator[Finding]:
    import importlib

    # By name: only the scheduler's ledger may speak SQL; here only the library's version is of interest.
    version = importlib.import_module("sqlite3").sqlite_version
    fit = tuple(int(part) for part in version.split(".")) >= _SQLITE_MIN
    least = ".".join(map(str, _SQLITE_MIN))
    yield Finding("sqlite", "ok" if fit else "fail", version, "" if fit else f"the ledger needs {least}: use a newer Python")


def _ports() -> Iterator[Finding]:
    from frazil.cli.services import UpSettings, require_free_port
    from frazil.model.errors import FrazilError

    for what, port in (("scheduler port", UpSettings().port), ("page port", UpSettings().web_port)):
        try:
            require_free_port("127.0.0.1", port, "")
        except FrazilError:
            yield Finding(what, "warn", f"{port} is in use", "is Frazil up already? Else choose others: --port, --web-port")
        else:
            yield Finding(what, "ok", f"{port} is free")


def _disk(data_dir: Path) -> Iterator[Finding]:
    from frazil.cli.services import file_system_of, is_network

    folder = next(one for one in (data_dir.resolve(), *data_dir.resolve().parents) if one.exists())
    free_gib = shutil.disk_usage(folder).free / 2**30
    state = "fail" if free_gib < 1 else "warn" if free_gib < 20 else "ok"
    yield Finding(
        "disk", state, f"{free_gib:,.1f} GiB free at {folder}", "" if state == "ok" else "make room or use another disk"
    )
    kind = file_system_of(folder)
    remote = is_network(kind)
    advice = (
        "keep the ledger on a local disk: --data-dir elsewhere, or `ledger` in [scheduler] of frazil.toml" if remote else ""
    )
    yield Finding("file system", "warn" if remote else "ok", kind, advice)
    writable = os.access(folder, os.W_OK | os.X_OK)
    yield Finding(
        "data folder", "ok" if writable else "fail", str(folder), "" if writable else "not writable: use another --data-dir"
    )


def _ledger(data_dir: Path, config: Path | None) -> Iterator[Finding]:
    """Ask the scheduler, which alone speaks SQL and reads its own settings."""
    from frazil.cli.services import find_program
    from frazil.cli.up import CONFIG_DEFAULT
    from frazil.model.errors import FrazilError

    file = config or (CONFIG_DEFAULT if CONFIG_DEFAULT.exists() else None)
    given = [] if file is None else ["--config", str(file)]
    try:
        command = [find_program("frazil-scheduler"), "--check-ledger", "--data-dir", str(data_dir), *given]
    except FrazilError:
        return  # told of already
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield Finding("ledger", "ok", done.stdout.strip())
    else:
        yield Finding("ledger", "fail", "cannot be used", done.stderr.strip().removeprefix("frazil-scheduler: "))


def _locks() -> Iterator[Finding]:
    from frazil.agent.__main__ import default_lock_folder
    from frazil.model.errors import FrazilError

    try:
        yield Finding("lock folder", "ok", str(default_lock_folder()))
    except FrazilError as error:
        yield Finding("lock folder", "fail", "none", error.sentence)


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for finding in findings:
        line = Text.assemble((f"{finding.state:<5}", colours[finding.state]), f"{finding.what:<16}", finding.found)
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"{'':<21}→ {finding.advice}", style="italic"), soft_wrap=True)
