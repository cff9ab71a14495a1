"""What ingest makes of a folder in every stage of a file's life; time is turned by hand."""

from __future__ import annotations

import bz2
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from frazil.api.exposure.v1.exposure_pb2 import Exposure, MovieFile
from frazil.io.movies import Completeness, structure_complete
from frazil.simulator.eer import encode_eer
from frazil_ingest.scanner import SessionScanner

Bench = Callable[..., Any]
Movie = Callable[..., bytes]


def write_tiff(path: Path, frames: int) -> None:
    tifffile.imwrite(path, np.full((frames, 32, 32), 7, np.uint8), photometric="minisblack", metadata=None)


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))}


def test_finished_movie_is_registered_after_it_stood_still_for_three_seconds(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "a.mrc").write_bytes(movie_bytes(frames=5))
    assert b.run(3) == []
    (found,) = b.run(1)
    assert (found.file.relative_path, found.file.frame_count, found.file.width_px, found.file.height_px) == ("a.mrc", 5, 32, 32)
    status = (b.root / "a.mrc").stat()
    assert (found.file.size_bytes, found.file.modified_ns) == (status.st_size, status.st_mtime_ns)
    assert found.file.inode == f"{status.st_dev}:{status.st_ino}"
    assert found.file.defect == ""
    assert b.run(100) == []


def test_source_is_never_written(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "sub").mkdir()
    (b.root / "sub" / "a.mrc").write_bytes(movie_bytes())
    (b.root / "empty.mrc").touch()
    (b.root / "cut.mrc").write_bytes(movie_bytes()[:-1])
    before = snapshot(b.root)
    assert len(b.run(90)) == 3
    assert snapshot(b.root) == before


def test_slowly_appended_movie_is_registered_only_whole(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    content = movie_bytes(frames=40)
    path = b.root / "slow.mrc"
    path.touch()
    written = 0

    def append() -> None:  # every other second, so that it often stands still
        nonlocal written
        if int(b.clock.now) % 2 == 0 and written < len(content):
            with path.open("ab") as file:
                file.write(content[written : written + 3000])
            written += 3000

    b.run(50, append)
    assert [(m.file.size_bytes, m.file.defect) for m in b.found] == [(len(content), "")]


def test_preallocated_movie_waits_for_its_pixels(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    content = movie_bytes(frames=10)
    path = b.root / "copy.mrc"
    with path.open("wb") as file:
        file.write(content[:4096])
        file.truncate(len(content))
    assert b.run(15) == []
    path.write_bytes(content)
    (found,) = b.run(6)
    assert found.file.defect == ""


def test_renaming_into_place(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    temporary = b.root / ".a.mrc.Xy12"
    temporary.write_bytes(movie_bytes())
    (b.root / "b.mrc.part").write_bytes(movie_bytes())
    (b.root / "~c.mrc").write_bytes(movie_bytes())
    assert b.run(40) == []
    assert b.scanner.status().files_seen == 0
    temporary.rename(b.root / "a.mrc")
    assert [m.file.relative_path for m in b.run(5)] == ["a.mrc"]


@pytest.mark.parametrize("keep", [0, 500, 1024, 2000, -1])
def test_broken_file_is_registered_with_a_sentence_and_again_when_whole(bench: Bench, movie_bytes: Movie, keep: int) -> None:
    b = bench()
    content = movie_bytes()
    path = b.root / "bad.mrc"
    path.write_bytes(content[:keep])
    assert b.run(19) == []
    assert b.scanner.status().files_settling == 1
    (found,) = b.run(3)
    assert "bad.mrc" in found.file.defect
    assert b.scanner.status().files_settling == 0
    assert b.run(70) == []
    path.write_bytes(content)
    (repaired,) = b.run(8)
    assert (repaired.file.defect, repaired.file.size_bytes) == ("", len(content))


def test_garbage_named_like_a_movie(bench: Bench) -> None:
    b = bench()
    (b.root / "noise.mrc").write_bytes(os.urandom(5000))
    (b.root / "noise.tif").write_bytes(b"II*\0" + b"\xff" * 500)
    b.run(30)
    assert sorted(b.names()) == ["noise.mrc", "noise.tif"]
    assert all(m.file.defect for m in b.found)


def test_replaced_content_is_registered_again(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    path = b.root / "a.mrc"
    path.write_bytes(movie_bytes(frames=3))
    b.run(5)
    path.write_bytes(movie_bytes(frames=4))
    (found,) = b.run(75)
    assert found.file.frame_count == 4
    assert b.scanner.status().files_settling == 0


def test_touched_then_untouched_file_is_not_registered_twice(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    path = b.root / "a.mrc"
    path.write_bytes(movie_bytes())
    b.run(5)
    original = path.stat()
    os.utime(path, ns=(original.st_atime_ns, original.st_mtime_ns + 10**9))
    b.run(58, lambda: None if b.scanner.status().files_settling == 0 else os.utime(path, ns=(0, original.st_mtime_ns)))
    assert b.run(10) == []
    assert b.scanner.status().files_settling == 0


def test_deleted_movies_are_reported_one_by_one_and_come_back(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    for name in ("a", "b"):
        (b.root / f"{name}.mrc").write_bytes(movie_bytes())
    b.run(5)
    (b.root / "a.mrc").rename(b.root.parent / "a.mrc")
    (gone,) = b.run(10)
    assert gone.gone_exposure_id == "id of a.mrc"
    assert "moved or deleted" in gone.file.defect
    (b.root.parent / "a.mrc").rename(b.root / "a.mrc")
    (back,) = b.run(6)
    assert (back.file.relative_path, back.file.defect) == ("a.mrc", "")


def test_movie_that_is_gone_after_it_failed_is_asked_about_until_it_is_back(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    for name in ("a.mrc", "b.mrc"):
        (b.root / name).write_bytes(movie_bytes())
    b.run(5)
    (b.root / "a.mrc").rename(b.root.parent / "a.mrc")
    (gone,) = b.run(10)
    assert b.run(130) == []
    b.scanner.may_be_retried(gone)
    (again,) = b.run(70)
    assert again.gone_exposure_id == gone.gone_exposure_id
    b.scanner.may_be_retried(again)
    (b.root.parent / "a.mrc").rename(b.root / "a.mrc")
    assert [(movie.gone_exposure_id, movie.file.defect) for movie in b.run(130)] == [("", "")]


def test_deletion_before_registration_leaves_nothing(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "a.mrc").write_bytes(movie_bytes())
    b.run(2)
    assert b.scanner.status().files_settling == 1
    (b.root / "a.mrc").unlink()
    assert b.run(30) == []
    assert (b.scanner.status().files_seen, b.scanner.status().files_settling) == (0, 0)


def test_unmounted_folder_marks_nothing_gone_and_resumes(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    for number in range(30):
        (b.root / f"{number}.mrc").write_bytes(movie_bytes())
    b.run(5)
    aside = b.root.with_name("aside")
    b.root.rename(aside)
    assert b.run(10) == []
    assert "cannot be read" in b.scanner.status().problem
    b.root.mkdir()  # what is left of a mount point
    sweeps = b.scanner.status().sweeps
    assert b.run(10) == []
    assert "check its mount" in b.scanner.status().problem
    assert b.scanner.status().sweeps == sweeps
    b.root.rmdir()
    aside.rename(b.root)
    (b.root / "new.mrc").write_bytes(movie_bytes())
    assert [m.file.relative_path for m in b.run(6)] == ["new.mrc"]
    assert b.scanner.status().problem == ""


def test_many_vanishing_at_once_say_nothing_about_any_one(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "disk").mkdir()
    for number in range(30):
        (b.root / "disk" / f"{number}.mrc").write_bytes(movie_bytes())
    (b.root / "here.mrc").write_bytes(movie_bytes())
    b.run(5)
    shutil.rmtree(b.root / "disk")
    (b.root / "new.mrc").write_bytes(movie_bytes())
    assert [m.file.relative_path for m in b.run(10)] == ["new.mrc"]


@pytest.mark.parametrize(
    "name",
    [
        "Ünïcode µm.mrc",
        "two  spaces.mrc",
        "new\nline.mrc",
        "quote'\".mrc",
        "x" * 251 + ".mrc",
        "-rf.mrc",
        "UPPER.MRC",
        "a#1%.mrcs",
    ],
)
def test_strange_names(bench: Bench, movie_bytes: Movie, name: str) -> None:
    b = bench()
    (b.root / name).write_bytes(movie_bytes())
    b.run(5)
    assert b.names() == [name]


def test_name_that_is_no_utf8_is_left_out_and_ends_nothing(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (Path(os.fsdecode(os.fsencode(b.root) + b"/\xff\xfe.mrc"))).write_bytes(movie_bytes())
    (b.root / "good.mrc").write_bytes(movie_bytes())
    b.run(5)
    assert b.names() == ["good.mrc"]


def test_two_hundred_at_once(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    for number in range(200):
        folder = b.root / f"GridSquare_{number % 7}" / "Data"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.mrc").write_bytes(movie_bytes())
    b.run(5)
    assert len(b.names()) == len(set(b.names())) == 200
    assert b.scanner.status().files_seen == 200


@pytest.mark.parametrize("seconds", [4e9, -4e8, 0])
def test_file_times_of_another_clock_are_harmless(bench: Bench, movie_bytes: Movie, seconds: float) -> None:
    b = bench()
    (b.root / "a.mrc").write_bytes(movie_bytes())
    os.utime(b.root / "a.mrc", (seconds, seconds))
    b.run(5)
    assert b.names() == ["a.mrc"]


def test_links_and_loops(bench: Bench, movie_bytes: Movie, tmp_path: Path) -> None:
    b = bench()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.mrc").write_bytes(movie_bytes())
    (b.root / "real").mkdir()
    (b.root / "real" / "b.mrc").write_bytes(movie_bytes())
    (b.root / "aaa").symlink_to(b.root / "real")  # a second name of one folder
    (b.root / "real" / "up").symlink_to(b.root)  # a loop
    (b.root / "self").symlink_to("self")
    (b.root / "linked").symlink_to(elsewhere)
    (b.root / "broken.mrc").symlink_to("nowhere.mrc")
    (b.root / "c.mrc").symlink_to(elsewhere / "a.mrc")
    b.run(6)
    assert sorted(b.names()) == ["c.mrc", "linked/a.mrc", "real/b.mrc"]
    assert b.scanner.status().files_settling == 0


def test_special_files_are_left_out(bench: Bench) -> None:
    b = bench()
    os.mkfifo(b.root / "pipe.mrc")
    (b.root / "folder.mrc").mkdir()
    assert b.run(30) == []
    assert b.scanner.status().files_seen == 0


def test_unreadable_subfolder_does_not_hide_the_others(
    bench: Bench, movie_bytes: Movie, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench()
    (b.root / "secret").mkdir()
    (b.root / "good.mrc").write_bytes(movie_bytes())
    scandir = os.scandir

    def guarded(path: Path) -> Any:  # root may read everything, so the refusal is simulated
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    b.run(5)
    assert b.names() == ["good.mrc"]
    status = b.scanner.status()
    assert status.problem == ""  # the rest of the folder is processed
    assert status.omission == (
        "Left out because it cannot be read: the folder secret (Permission denied). It is processed as soon as it can be read."
    )
    monkeypatch.setattr(os, "scandir", scandir)
    (b.root / "secret" / "late.mrc").write_bytes(movie_bytes())
    b.run(8)
    assert b.names() == ["good.mrc", "secret/late.mrc"]
    assert b.scanner.status().omission == ""


def test_movies_whose_folder_becomes_unreadable_are_not_called_gone(
    bench: Bench, movie_bytes: Movie, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench()
    (b.root / "square").mkdir()
    for name in ("good.mrc", "square/a.mrc"):
        (b.root / name).write_bytes(movie_bytes())
    b.run(8)
    scandir = os.scandir

    def guarded(path: Path) -> Any:
        if Path(path).name == "square":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    os.utime(b.root / "square")  # so that it is listed anew
    assert b.run(90) == []
    assert "the folder square (Permission denied)" in b.scanner.status().omission


def test_eer_movies_need_not_have_equally_many_raw_frames(bench: Bench) -> None:
    b = bench()
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    for number in range(7):
        (b.root / f"{number}.eer").write_bytes(encode_eer([nothing] * (20 if number < 6 else 17), (32, 32)))
        b.run(6)
    assert b.names() == [f"{number}.eer" for number in range(7)]
    assert b.found[-1].file.frame_count == 17


def test_bzip2_is_taken_up_only_where_the_session_says_so(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "a.mrc.bz2").write_bytes(bz2.compress(movie_bytes(frames=4)))
    b.run(10)
    assert b.names() == []
    assert "1 .bz2" in b.scanner.status().problem
    b = bench(read_bzip2=True)
    b.run(10)
    assert [(movie.file.relative_path, movie.file.frame_count) for movie in b.found] == [("a.mrc.bz2", 4)]


def test_parser_that_breaks_on_one_file_does_not_hide_the_others(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    for name in ("bad.mrc", "good.mrc"):
        (b.root / name).write_bytes(movie_bytes())

    def breaking(path: Path, *, opt_in: bool = False) -> Completeness:
        if path.name == "bad.mrc":
            raise MemoryError
        return structure_complete(path, opt_in=opt_in)

    b.scanner = SessionScanner(b.parameters, b.clock, check=breaking)
    b.run(5)
    assert b.names() == ["good.mrc"]
    assert "bad.mrc (Looking at it failed: MemoryError())" in b.scanner.status().omission


def test_default_selection_takes_movies_only(bench: Bench, movie_bytes: Movie) -> None:
    b = bench(gain_path="")
    b.parameters.gain_path = str(b.root / "gain.mrc")
    b.restart()
    (b.root / "Atlas_1.mrc").write_bytes(movie_bytes(frames=1, side=64))
    (b.root / "gain.mrc").write_bytes(movie_bytes(frames=2))
    (b.root / "FoilHole_1.jpg").write_bytes(b"x")
    (b.root / "FoilHole_1.xml").write_bytes(b"<x/>")
    write_tiff(b.root / "FoilHole_1_Fractions.tiff", 4)
    write_tiff(b.root / "preview.tif", 1)
    b.run(30)
    assert b.names() == ["FoilHole_1_Fractions.tiff"]
    assert b.scanner.status().files_settling == 0


def test_single_image_that_the_glob_asks_for_is_a_defect(bench: Bench, movie_bytes: Movie) -> None:
    b = bench(movie_glob="*.mrc")
    (b.root / "one.mrc").write_bytes(movie_bytes(frames=1, side=64))
    (found,) = b.run(6)
    assert "single image" in found.file.defect


def test_movie_cut_between_two_frames_waits(bench: Bench) -> None:
    b = bench()
    for number in range(6):
        write_tiff(b.root / f"{number}.tif", 8)
    b.run(5)
    write_tiff(b.root / "cut.tif", 3)  # whole as a TIFF, but short of what this session's movies have
    assert b.run(15) == []
    write_tiff(b.root / "cut.tif", 8)
    (found,) = b.run(6)
    assert (found.file.frame_count, found.file.defect) == (8, "")
    write_tiff(b.root / "short.tif", 3)  # and if it really is short, it is processed as it is
    (short,) = b.run(25)
    assert (short.file.frame_count, short.file.defect) == (3, "")


def test_movie_waits_for_its_metadata(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    b.parameters.ClearField("pixel_size_angstrom")
    b.restart()
    (b.root / "a.mrc").write_bytes(movie_bytes())
    assert b.run(8) == []
    (b.root / "a.mrc.mdoc").write_text("PixelSpacing = 0.83\nVoltage = 300\n[ZValue = 0]\n")
    (found,) = b.run(2)
    assert found.metadata.pixel_size_angstrom == pytest.approx(0.83)
    (b.root / "b.mrc").write_bytes(movie_bytes())  # others have a companion: this one is waited for, but not for ever
    assert b.run(14) == []
    (late,) = b.run(4)
    assert late.metadata.pixel_size_angstrom == pytest.approx(1.25)
    assert dict(late.metadata.provenance)["pixel_size_angstrom"] == "MRC header"


def test_with_the_pixel_size_given_metadata_is_not_waited_for(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "a.mrc").write_bytes(movie_bytes())
    assert len(b.run(5)) == 1


def test_restart_rebuilds_the_cache_from_the_ledger(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    for name in ("a.mrc", "b.mrc"):
        (b.root / name).write_bytes(movie_bytes())
    (b.root / "bad.mrc").write_bytes(b"")
    b.run(25)
    ledger = [Exposure(exposure_id=f"id of {m.file.relative_path}", file=m.file) for m in b.found]
    b.restart()
    b.scanner.restore(ledger)
    (b.root / "c.mrc").write_bytes(movie_bytes())
    names = [m.file.relative_path for m in b.run(30)]
    assert names == ["c.mrc", "bad.mrc"]  # the defective one is judged anew, and found the same
    assert b.found[-1].file == ledger[-1].file


def test_restart_with_a_mount_that_got_another_device_number(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "a.mrc").write_bytes(movie_bytes())
    status = (b.root / "a.mrc").stat()
    file = MovieFile(
        relative_path="a.mrc", size_bytes=status.st_size, modified_ns=status.st_mtime_ns, inode="999:1", frame_count=3
    )
    b.scanner.restore([Exposure(exposure_id="x", file=file)])
    assert b.run(70) == []


def test_status_tells_when_a_folder_is_finished(bench: Bench, movie_bytes: Movie) -> None:
    b = bench()
    (b.root / "a.mrc").write_bytes(movie_bytes())
    (b.root / "bad.mrc").write_bytes(movie_bytes()[:2000])
    b.run(10)
    status = b.scanner.status()
    assert (status.sweeps, status.files_seen, status.files_settling) == (10, 2, 1)
    assert status.seconds_since_change == pytest.approx(10.0)
    b.run(15)
    status = b.scanner.status()
    assert (status.files_seen, status.files_settling) == (2, 0)


@pytest.mark.parametrize("make", ["absent", "file"])
def test_folder_that_cannot_be_read(bench: Bench, make: str) -> None:
    b = bench()
    b.root.rmdir()
    if make == "file":
        b.root.write_text("x")
    assert b.run(3) == []
    assert str(b.root) in b.scanner.status().problem
    assert b.scanner.status().sweeps == 0


def test_folder_of_a_format_that_is_not_read_says_so(bench: Bench) -> None:
    b = bench()
    for number in range(3):
        (b.root / f"{number}.dm4").write_bytes(b"x")
    b.run(2)
    assert "3 .dm4" in b.scanner.status().problem


def test_failing_file_system_changes_nothing(bench: Bench, movie_bytes: Movie, monkeypatch: pytest.MonkeyPatch) -> None:
    b = bench()
    (b.root / "sub").mkdir()
    (b.root / "sub" / "a.mrc").write_bytes(movie_bytes())
    (b.root / "b.mrc").write_bytes(movie_bytes())
    b.run(5)
    stat = Path.stat

    def stale(self: Path, **kwargs: Any) -> os.stat_result:
        if self.name == "sub":
            raise OSError(116, "Stale file handle")
        return stat(self, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stale)
        assert b.run(10) == []
        assert "Stale" in b.scanner.status().problem
    assert b.run(10) == []
    assert b.scanner.status().problem == ""
