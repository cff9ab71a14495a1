"""Deleting sessions: nothing that is not the session's alone goes, and a crash at any step only delays it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from frazil.api.session.v1.session_pb2 import SessionParameters
from frazil.api.worker.v1 import worker_pb2
from frazil.model.errors import FrazilError
from frazil_scheduler.domain import deletion, gpus, sessions, workers
from frazil_scheduler.ledger import tables
from model.world import World
from unit.scheduler.stories import publish_volume, session
from unit.scheduler.test_compute import begin, end_draining

SESSIONS_OWN = ("session", "exposure", "attempt", "particle_block", "job", "lease", "checkpoint", "class_averages", "volume",
                "templates")  # fmt: skip


def worked(world: World) -> str:
    """Return a paused session with movies, results, checkpoints, and everything else that it may leave."""
    session_id = begin(world, 2)
    for number in range(3):
        world.register(session_id, f"m{number}")
        world.claim(world.worker_of("preprocess"), 1)
        world.commit(world.worker_of("preprocess"))
    world.checkpoint(world.worker_of("class2d_streaming"))
    publish_volume(world, world.worker_of("class2d_streaming").token, 1)
    templates = worker_pb2.PublishTemplatesRequest(request_id="t", lease=world.worker_of("class2d_streaming").token)
    world.store.transact(lambda tx: workers.publish_templates(tx, templates))
    world.change(session_id, "pause")
    end_draining(world)
    return session_id


def mark(world: World, session_id: str, *, delete_results: bool) -> None:
    world.store.transact(lambda tx: deletion.begin(tx, sessions.require(tx, session_id), delete_results=delete_results))


def forget(world: World, session_id: str) -> None:
    for _ in range(20):
        if world.store.transact(lambda tx: deletion.forget_some(tx, session_id)):
            return
    raise AssertionError("it never ends")


def folder_of(world: World, session_id: str) -> Path:
    """Make the folder that the row names, with some results."""
    folder = Path(str(session(world)["folder"]))
    deletion.make_folder(folder, session_id)
    (folder / "results" / "a").mkdir(parents=True)
    (folder / "results" / "a" / "micrograph.mrc").write_bytes(b"x")
    return folder


def test_everything_of_the_session_goes_and_nothing_of_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "ROWS_AT_ONCE", 2)  # several transactions for each table
    other = world.create("other", until="preprocess")
    world.change(other, "start")
    world.change(other, "pause")
    session_id = worked(world)
    mark(world, session_id, delete_results=False)
    world.restart()
    forget(world, session_id)
    for name in SESSIONS_OWN:
        rows = world.rows(tables.metadata.tables[name])
        assert [row["session_id"] for row in rows] == ([other] if name in ("session", "job") else [])
    kinds = [event["body"] for event in world.rows(tables.event) if b"session_deleted" in event["body"]]
    assert len(kinds) == 1
    world.create("s")  # the name is free again


def test_only_a_session_at_rest_without_any_open_lease_is_deleted(world: World) -> None:
    session_id = begin(world, 1, until="preprocess")
    with pytest.raises(FrazilError, match="pause it, then"):
        mark(world, session_id, delete_results=False)
    world.unlink("one")
    world.advance(70)  # lost, with its lease
    world.change(session_id, "pause")
    assert session(world)["state"] == "PAUSED"
    with pytest.raises(FrazilError, match="GPU-0#0 of one"):
        mark(world, session_id, delete_results=False)
    world.hello("one")
    end_draining(world)
    mark(world, session_id, delete_results=False)
    assert session(world)["state"] == "DELETING"
    for how in ("start", "pause", "complete"):
        with pytest.raises(FrazilError) as caught:
            world.change(session_id, how)
        assert caught.value.reason == "SESSION_STATE_WRONG"
    with pytest.raises(FrazilError, match="still being deleted"):
        world.create("s")


@pytest.mark.parametrize("crash", ["before", "after the renaming", "half removed", "after"])
def test_the_folder_goes_whole_over_a_crash_at_any_step(world: World, crash: str) -> None:
    session_id = worked(world)
    folder = folder_of(world, session_id)
    mark(world, session_id, delete_results=True)
    (row,) = world.store.read(deletion.pending)
    aside = world.folder / f".deleting-{session_id}"
    if crash != "before":
        folder.rename(aside)
    if crash == "half removed":
        (aside / deletion.MARK).unlink()
    if crash == "after":
        assert deletion.clear_folder(row, world.folder, lambda: False) == ""
    assert deletion.clear_folder(row, world.folder, lambda: False) == ""
    assert not folder.exists()
    assert not aside.exists()


def test_it_ends_early_when_the_scheduler_stops_and_goes_on_later(world: World) -> None:
    session_id = worked(world)
    folder_of(world, session_id)
    mark(world, session_id, delete_results=True)
    (row,) = world.store.read(deletion.pending)
    assert deletion.clear_folder(row, world.folder, lambda: True) == ""
    assert (world.folder / f".deleting-{session_id}").exists()
    assert deletion.clear_folder(row, world.folder, lambda: False) == ""
    assert not (world.folder / f".deleting-{session_id}").exists()


def test_links_are_removed_and_not_followed(world: World, tmp_path: Path) -> None:
    session_id = worked(world)
    folder = folder_of(world, session_id)
    movies = tmp_path / "movies"
    movies.mkdir()
    (movies / "m1.tiff").write_bytes(b"movie")
    (folder / "results" / "movies").symlink_to(movies)
    (folder / "m1.tiff").symlink_to(movies / "m1.tiff")
    mark(world, session_id, delete_results=True)
    (row,) = world.store.read(deletion.pending)
    assert deletion.clear_folder(row, world.folder, lambda: False) == ""
    assert not folder.exists()
    assert (movies / "m1.tiff").read_bytes() == b"movie"


def test_a_folder_that_is_not_the_sessions_own_is_refused(tmp_path: Path) -> None:
    mine, foreign, elsewhere = tmp_path / "mine", tmp_path / "foreign", tmp_path / "a" / "b"
    deletion.make_folder(mine, "id1")
    deletion.make_folder(elsewhere, "id1")
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    deletion.make_folder(foreign, "id1")  # used, but not marked
    (tmp_path / "link").symlink_to(mine)
    deletion.check_folder(mine, tmp_path, "id1")
    deletion.check_folder(tmp_path / "gone", tmp_path, "id1")
    for folder, session_id in ((mine, "id2"), (foreign, "id1"), (elsewhere, "id1"), (tmp_path / "link", "id1")):
        with pytest.raises(FrazilError) as caught:
            deletion.check_folder(folder, tmp_path, session_id)
        assert caught.value.reason == "SESSION_FOLDER_FOREIGN"


def test_a_new_session_does_not_write_into_the_results_of_a_deleted_one(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    deletion.make_folder(folder, "id1")
    deletion.make_folder(folder, "id2")  # nothing in it yet
    (folder / "results").mkdir()
    deletion.make_folder(folder, "id2")
    with pytest.raises(FrazilError) as caught:
        deletion.make_folder(folder, "id3")
    assert caught.value.reason == "SESSION_FOLDER_TAKEN"


def test_a_quarantined_slot_keeps_its_session_until_it_is_proven_free(world: World) -> None:
    session_id = begin(world, 1, until="preprocess")
    world.store.transact(lambda tx: gpus.quarantine(tx, "GPU-0#0", "maintenance"))
    world.change(session_id, "pause")
    with pytest.raises(FrazilError):
        mark(world, session_id, delete_results=False)
    end_draining(world)
    mark(world, session_id, delete_results=False)


def test_results_that_another_session_picks_with_are_not_deleted(world: World) -> None:
    session_id = world.create("source")
    folder = str(session(world)["folder"])
    other = world.create("user")
    parameters = SessionParameters(picker="template", picker_templates_path=f"{folder}/templates/j/1.mrcs")
    values = {"parameters": parameters.SerializeToString()}
    world.store.transact(lambda tx: tx.run(update(tables.session).where(tables.session.c.session_id == other).values(**values)))
    with pytest.raises(FrazilError, match="Session user uses") as caught:
        mark(world, session_id, delete_results=True)
    assert caught.value.reason == "RESULTS_IN_USE"
    mark(world, session_id, delete_results=False)
