"""The folder of one attempt: written under a temporary name, described by a manifest, renamed into place whole.

    with AttemptFolder(session_folder, exposure_id, claim.attempt_folder) as attempt:
        write_mrc(attempt.path / "micrograph.mrc", ...)
    context.commit(claim, result, attempt.manifest_sha256)

The folder is only a candidate; the ledger's row makes it real. Nothing is overwritten, so an attempt that lost its lease
can harm nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import TracebackType

from frazil.io.atomic import disk_full_named, flush
from frazil.model.errors import ErrorKind, FrazilError

MANIFEST = "manifest.json"


class AttemptFolder:
    """Write into `path` inside a `with` block; when it ends well the folder is in place under `final_path`.

    When the block raises, nothing is left behind. A full disk or quota, which NFS may report only when a file is closed or
    flushed, is raised as DiskFullError. `relative_path` ("results/<exposure>/<attempt>") is what `ExposureResult.folder`
    holds; `manifest_sha256` is known after the block.
    """

    def __init__(self, session_folder: Path | str, exposure_id: str, attempt_folder: str, *, among: str = "results") -> None:
        for name in (exposure_id, attempt_folder):
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise FrazilError("NAME_INVALID", f"{name!r} cannot be the name of a folder.")
        self.relative_path = f"{among}/{exposure_id}/{attempt_folder}"
        self.final_path = Path(session_folder) / self.relative_path
        self.path = self.final_path.with_name(f"{attempt_folder}.tmp")
        self.manifest_sha256 = ""

    def __enter__(self) -> AttemptFolder:
        if self.final_path.exists():
            raise FrazilError(
                "ATTEMPT_EXISTS",
                f"{self.final_path} exists already; an attempt is never written twice.",
                kind=ErrorKind.ALREADY_EXISTS,
            )
        with disk_full_named(self.path):
            self.final_path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():  # left by a worker that was killed
                shutil.rmtree(self.path)
            self.path.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            with disk_full_named(self.path):
                if isinstance(error, OSError):
                    raise error
            return
        try:
            with disk_full_named(self.path):
                self._seal()
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def discard(self) -> None:
        """Delete the folder in place: its attempt was superseded."""
        shutil.rmtree(self.final_path, ignore_errors=True)

    def _seal(self) -> None:
        """Flush every file, describe it, and rename the folder; the order makes a torn result invisible."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        entries = {str(path.relative_to(self.path)): _flushed(path) for path in files}
        text = json.dumps({"files": entries}, indent=1, sort_keys=True).encode()
        manifest = self.path / MANIFEST
        manifest.write_bytes(text)
        flush(manifest)
        for folder in sorted((path for path in self.path.rglob("*") if path.is_dir()), reverse=True):
            flush(folder)
        flush(self.path)
        self.path.rename(self.final_path)
        flush(self.final_path.parent)
        self.manifest_sha256 = hashlib.sha256(text).hexdigest()


def verify_attempt(folder: Path | str, manifest_sha256: str) -> None:
    """Check a folder against its manifest. Raises FrazilError RESULT_DAMAGED naming the first file that differs."""
    root = Path(folder)
    try:
        text = (root / MANIFEST).read_bytes()
        if hashlib.sha256(text).hexdigest() != manifest_sha256:
            raise _damaged(root / MANIFEST)
        for name, entry in json.loads(text)["files"].items():
            with (root / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise _damaged(root / name)
    except FileNotFoundError as error:
        raise _damaged(Path(error.filename)) from error


def _damaged(path: Path) -> FrazilError:
    return FrazilError(
        "RESULT_DAMAGED", f"{path} is not what was written: process its exposure again.", kind=ErrorKind.INTERNAL
    )


def _flushed(path: Path) -> dict[str, object]:
    """Flush a file and return its entry; the digest is of what the file system holds, not of what was meant."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size_bytes": path.stat().st_size, "sha256": digest}
