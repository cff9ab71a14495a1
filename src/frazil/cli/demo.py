"""`frazil demo`: a simulated microscope, a live session, the page in the browser; no data, GPU or configuration needed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from frazil.api.session.v1.session_pb2 import Session
    from frazil.cli.services import Deployment
    from frazil.client import Client

SESSION_NAME = "demo"
_FOLDER = Path("demo")
_MARKER = ".frazil-demo"
_PARTICLE = "cct"
_CLASSES = 20
_IDLE_SECONDS = 8.0
_CAMERA_SECONDS = 60.0


def demo(
    once: Annotated[bool, typer.Option("--once", help="End when the last result is in, instead of with Ctrl-C.")] = False,
    movies: Annotated[int, typer.Option("--movies", min=1, help="Number of simulated movies.")] = 20,
    interval: Annotated[float, typer.Option("--interval", min=0.0, help="Seconds from one movie to the next.")] = 6.0,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port of the page (default 8080 if free).")
    ] = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="Folder for everything, kept (default: demo, replaced).")] = None,
    limit: Annotated[float, typer.Option("--limit", min=1.0, help="Seconds after which --once gives up.")] = 840.0,
) -> None:
    """Simulated microscope to 2D classes, live in the browser."""
    from frazil.cli.services import Deployment, free_port, node_id_for, slot_layout
    from frazil.cli.supervise import stop_signals
    from frazil.cli.up import say

    folder = prepare_folder(keep)
    layout = slot_layout(None)
    deployment = Deployment(
        data_dir=folder / "data",
        port=_preferred_port(50051, 0),
        web_port=port if port is not None else _preferred_port(8080, free_port("127.0.0.1")),
        cpu_slots=layout.cpu_slots,
        slots_per_gpu=layout.slots_per_gpu,
        node_id=node_id_for(folder),
        ledger=folder / "data" / "ledger.sqlite",  # its own, whatever the environment says
    )
    try:
        with (
            stop_signals(),
            deployment.supervisor(say),
            _microscope(folder, movies, interval, deployment.data_dir) as microscope,
        ):
            _live(deployment, folder, layout.workers, microscope, limit_seconds=limit if once else float("inf"), stay=not once)
    except KeyboardInterrupt:
        if once:
            raise
        print(f"Stopped; everything is in {folder}.")


def prepare_folder(keep: Path | None) -> Path:
    """Return an empty folder for the demo; only what an earlier demo made is ever removed."""
    import shutil

    from frazil.model.errors import FrazilError

    folder = keep or _FOLDER
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if keep is not None or not (folder / _MARKER).exists():
            raise FrazilError("DEMO_FOLDER_IN_USE", f"{folder} is not empty: move it away, or name a new folder with --keep.")
        _require_idle(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder.resolve()


def _require_idle(folder: Path) -> None:
    """Raise FrazilError ALREADY_RUNNING when another demo runs there; stops what a killed one left."""
    from frazil.cli.supervise import Supervisor
    from frazil.cli.up import say

    with Supervisor([], folder / "data", say):
        pass


@contextlib.contextmanager
def _microscope(folder: Path, movies: int, interval: float, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the simulated microscope beside everything else; it is told to stop when the block ends."""
    from frazil.cli.processes import MARK
    from frazil.cli.services import find_program

    command = [find_program("frazil"), "simulate", str(folder / "microscope"), "--truth", str(folder / "truth")]
    command += ["--movies", str(movies), "--interval", str(interval), "--particle", _PARTICLE]
    environment = {**os.environ, MARK: str(data_dir.resolve()), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with (data_dir / "logs" / "microscope.log").open("ab") as log:
        microscope = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        yield microscope
    finally:
        microscope.kill()  # it holds nothing that must be put away
        microscope.wait()


def _live(
    deployment: Deployment,
    folder: Path,
    workers: int,
    microscope: subprocess.Popen[bytes],
    *,
    limit_seconds: float,
    stay: bool,
) -> None:
    """Create the session, follow it to its end, show what came out; with `stay` keep serving the page."""
    from frazil.api.session.v1.session_pb2 import ComputeResources
    from frazil.cli.follow import EventFeed, Follower, folder_is_finished, make_view
    from frazil.cli.results import export_from, summary_lines
    from frazil.cli.up import wait_for_interrupt
    from frazil.client import Client

    begin = time.monotonic()
    log = deployment.data_dir / "logs" / "microscope.log"
    _await_camera(folder / "microscope", microscope, log)
    with Client(deployment.scheduler_address) as client:
        session = _create(client, folder, ComputeResources(preprocessing_workers=workers))
        print(
            f"\n  The session is live at  {deployment.web_address}   (scheduler {deployment.scheduler_address})\n", flush=True
        )

        def is_finished(session: Session) -> bool:
            _require_success(microscope, log)
            return microscope.poll() == 0 and folder_is_finished(session.scan, _IDLE_SECONDS)

        with make_view() as view:
            feed = EventFeed(client, session.session_id, deployment.data_dir / "resume-token")
            Follower(client, session.session_id, view).run(feed, is_finished=is_finished, limit_seconds=limit_seconds)
        exported, snapshot = export_from(client, session.session_id, folder / "results")
        print(f"\nThe session is complete after {time.monotonic() - begin:.0f} s.")
        print("\n".join(summary_lines(snapshot, exported)))
        print(f"  class sheet {exported.class_sheet or 'none'}\n  page        {deployment.web_address}", flush=True)
        if not exported.micrograph_count:
            raise typer.Exit(1)
        if stay:
            print("\nCtrl-C stops it.", flush=True)
            wait_for_interrupt()


def _create(client: Client, folder: Path, compute: object) -> Session:
    from frazil.api.session.v1.session_pb2 import ComputeResources, SessionParameters
    from frazil.simulator import DEFECTS_NAME, GAIN_NAME
    from frazil.simulator.atoms import load_atoms

    movies = folder / "microscope"
    parameters = SessionParameters(
        movie_folder=str(movies),
        movie_glob="**/*.tiff",
        gain_path=str(movies / GAIN_NAME),
        gain_flip="none",
        defects_path=str(movies / DEFECTS_NAME),
        particle_diameter_angstrom=round(load_atoms(_PARTICLE).diameter_angstrom, -1),
        class_count=_CLASSES,
        seed=1,
    )
    resources = compute if isinstance(compute, ComputeResources) else None
    session = client.create_session(SESSION_NAME, parameters, compute=resources, labels={"sample": "simulated chaperonin CCT"})
    return client.start(session.session_id)


def _await_camera(movies: Path, microscope: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the gain reference and the defect file are there: they come before the first movie."""
    from frazil.model.errors import ErrorKind, FrazilError
    from frazil.simulator import DEFECTS_NAME, GAIN_NAME

    give_up_at = time.monotonic() + _CAMERA_SECONDS
    while not all((movies / name).exists() for name in (GAIN_NAME, DEFECTS_NAME)):
        _require_success(microscope, log)
        if time.monotonic() > give_up_at:
            raise FrazilError(
                "MICROSCOPE_SILENT", f"The simulated microscope wrote nothing; see {log}.", kind=ErrorKind.UNAVAILABLE
            )
        time.sleep(0.1)


def _require_success(microscope: subprocess.Popen[bytes], log: Path) -> None:
    from frazil.cli.supervise import last_line
    from frazil.model.errors import ErrorKind, FrazilError

    if microscope.poll():
        raise FrazilError(
            "MICROSCOPE_FAILED", f"The simulated microscope ended: {last_line(log)} (its log: {log})", kind=ErrorKind.INTERNAL
        )


def _preferred_port(preferred: int, otherwise: int) -> int:
    from frazil.cli.services import require_free_port
    from frazil.model.errors import FrazilError

    try:
        require_free_port("127.0.0.1", preferred, "--port")
    except FrazilError:
        return otherwise
    return preferred
