"""The page in a real browser, before a scheduler in memory that grows a session while it is watched."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from frazil.api.exposure.v1.exposure_pb2 import OVERRIDE_REJECT
from frazil_web.app import create_app
from frazil_web.scheduler import Scheduler
from integration.web.conftest import QUICK, serve
from integration.web.fake_scheduler import FakeScheduler
from integration.web.fake_session import Microscope, add_resources

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM_PATH", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
expect.set_options(timeout=20_000)  # machines that test are busy
SIZES = ((1280, 800), (1920, 1080))
NAME = "apoferritin-grid7"


@dataclass(frozen=True, slots=True)
class Stage:
    """The page's address, and what stands behind it."""

    address: str
    ledger: FakeScheduler
    session: Any
    microscope: Microscope


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    ledger = FakeScheduler(tmp_path / "data")
    ledger.address = await ledger.start()
    ledger.heartbeat_seconds = 0.5
    session = await ledger.add_session(NAME, folder="/data/krios/grid7", state="STATE_RUNNING", pixel_size_angstrom=0.83)
    microscope = Microscope(ledger, session, clock=time.time)
    microscope.share_pictures = 5
    scheduler = Scheduler(ledger.address)
    async with serve(create_app(scheduler, pace=QUICK)) as address:
        yield Stage(address, ledger, session, microscope)
    await scheduler.close()
    await ledger.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        await found.close()


@pytest.fixture
async def page(browser: Browser, stage: Stage) -> AsyncIterator[Page]:
    """A page that fails the test for any error, and for any request to another host."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    found = await context.new_page()
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    found.on("request", lambda request: None if request.url.startswith(stage.address) else faults.append(request.url))
    yield found
    await context.close()
    refused = "Failed to load resource"  # the browser's own line for an answer such as 400 or 503, which tests provoke
    assert [fault for fault in faults if refused not in fault] == []


async def _shown_thumbnails(page: Page) -> int:
    script = "images => images.filter(image => image.complete && image.naturalWidth > 0).length"
    return int(await page.locator(".tile img").evaluate_all(script))


async def test_a_session_grows_while_it_is_watched(page: Page, stage: Stage, tmp_path: Path) -> None:
    await page.goto(stage.address)
    await page.get_by_role("link", name=NAME).click()
    await expect(page.get_by_text("No movies in /data/krios/grid7 yet")).to_be_visible()
    await expect(page.get_by_text("No 2D classes yet")).to_be_visible()
    microscope = stage.microscope
    for number in range(1, 8):
        exposure = await microscope.find()
        await microscope.run(exposure)
        if number == 3:
            await microscope.fail(exposure, "The movie is truncated: 31 of 50 frames are there.")
        else:
            await microscope.finish(exposure)
        await expect(page.locator(".tile")).to_have_count(number)
    await expect(page.locator(".tile img.shown")).to_have_count(6)
    assert await _shown_thumbnails(page) == 6
    assert await page.locator(".tile-number").all_inner_texts() == ["7", "6", "5", "4", "3", "2", "1"]
    await expect(page.locator(".tile-quarantined")).to_contain_text("31 of 50 frames")
    await expect(page.locator(".stat", has_text="Done").locator(".stat-value")).to_have_text("6")
    await expect(page.locator(".stat", has_text="Failed").locator(".stat-value")).to_have_text("1")

    classes = await microscope.publish_classes(class_count=30, particle_count=5000)
    await expect(page.locator(".class")).to_have_count(30)
    await expect(page.locator(".classes")).to_contain_text(f"Classified {classes.particle_count:,} of")
    best = max(average.particle_count for average in classes.classes)
    await expect(page.locator(".class-count").first).to_have_text(f"{best:,}")
    junk = sum(average.junk for average in classes.classes)
    assert junk > 0
    await page.get_by_role("button", name="Hide junk").click()
    await expect(page.locator(".class")).to_have_count(30 - junk)

    await page.get_by_role("button", name="Failed 1").click()
    await expect(page.locator(".tile")).to_have_count(1)
    await page.get_by_role("button", name="Retry 1 failed").click()
    await expect(page.locator(".tile")).to_have_count(0)
    await expect(page.get_by_role("button", name="Retry 1 failed")).to_have_count(0)
    await page.screenshot(path=tmp_path / "session.png")


async def test_an_exposure_is_shown_large_with_its_picks(page: Page, stage: Stage, tmp_path: Path) -> None:
    for _ in range(3):
        await stage.microscope.finish(await stage.microscope.find())
    await page.goto(f"{stage.address}/sessions/{stage.session.session_id}")
    await page.locator(".tile").nth(1).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("heading", name="Micrograph 2")).to_be_visible()
    await expect(dialog).to_contain_text("Defocus")
    await expect(dialog.get_by_alt_text("Power spectrum")).to_be_visible()
    await expect(dialog.locator(".track-line")).to_be_visible()
    drawn = """canvas => {
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return pixels.some((value, place) => place % 4 === 3 && value > 0);
    }"""
    await page.wait_for_function(f"() => ({drawn})(document.querySelector('.exposure-picture canvas'))")
    await page.screenshot(path=tmp_path / "exposure.png")
    await page.keyboard.press("p")
    await expect(dialog.locator("canvas")).to_have_count(0)
    await page.keyboard.press("ArrowLeft")
    await expect(dialog.get_by_role("heading", name="Micrograph 3")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await page.locator(".plot .u-over").first.click()
    await expect(dialog.get_by_role("heading", name="Micrograph")).to_be_visible()


async def test_resources_tell_who_holds_a_slot_and_why_a_job_waits(page: Page, stage: Stage, tmp_path: Path) -> None:
    other = await stage.ledger.add_session("tmv-screening", state="STATE_RUNNING")
    await page.goto(f"{stage.address}/resources")
    await expect(page.get_by_text("No node has dialled in")).to_be_visible()
    await add_resources(stage.ledger, stage.session.session_id, now=time.time(), other_session_id=other.session_id)
    slot = page.locator(".slot", has_text="GPU-1f3a#0")
    await expect(slot).to_contain_text(f"Preprocessing of {NAME}")
    await expect(slot).to_contain_text("for 45 min")
    await expect(page.locator(".slot", has_text="GPU-9ab2#0")).to_contain_text("Out of service")
    waiting = page.locator(".job", has_text="tmv-screening")
    await expect(waiting).to_contain_text("Both GPU slots of lane gpu are held")
    await expect(waiting).to_contain_text("Pause session apoferritin-grid7")
    await expect(page.locator(".node", has_text="gpubox-3")).to_contain_text("silent for")
    await page.screenshot(path=tmp_path / "resources.png")


async def test_an_outage_is_said_and_over_by_itself(page: Page, stage: Stage) -> None:
    await stage.microscope.finish(await stage.microscope.find())
    await page.goto(f"{stage.address}/sessions/{stage.session.session_id}")
    await expect(page.locator(".connection")).to_have_text("Live")
    await stage.ledger.stop()
    await expect(page.locator(".connection")).to_contain_text("Scheduler unreachable")
    await expect(page.locator(".tile")).to_have_count(1)  # what is known stays
    await stage.microscope.finish(await stage.microscope.find())
    await stage.ledger.start(stage.ledger.address)
    await expect(page.locator(".connection")).to_have_text("Live", timeout=15_000)
    await expect(page.locator(".tile")).to_have_count(2)


async def test_a_page_opened_during_an_outage_recovers(page: Page, stage: Stage) -> None:
    await stage.ledger.stop()
    await page.goto(stage.address)
    await expect(page.get_by_role("heading", name="The scheduler does not answer")).to_be_visible()
    await stage.ledger.start(stage.ledger.address)
    await expect(page.get_by_role("link", name=NAME)).to_be_visible(timeout=15_000)


async def test_a_new_session_is_made_and_started(page: Page, stage: Stage, tmp_path: Path) -> None:
    await page.goto(stage.address)
    await expect(page.get_by_role("link", name=NAME)).to_be_visible()
    await page.keyboard.press("n")
    form = page.get_by_role("dialog")
    await form.get_by_label("Name").fill(NAME)
    await form.get_by_label("Particle diameter").fill("wide")
    await form.get_by_role("button", name="Create and start").click()
    await expect(form.get_by_text("Name the folder the movies arrive in.")).to_be_visible()
    await expect(form.get_by_text("This is not a number.")).to_be_visible()
    await page.screenshot(path=tmp_path / "form.png")
    await form.get_by_label("Movie folder").fill("/data/krios/grid8")
    await form.get_by_label("Particle diameter").fill("120")
    await form.get_by_role("button", name="Create and start").click()
    await expect(form.locator(".field-problem", has_text="choose another name")).to_be_visible()
    await form.get_by_label("Name").fill("grid8")
    await form.get_by_role("button", name="Create and start").click()
    await expect(page.get_by_role("heading", name="grid8")).to_be_visible()
    await expect(page.locator(".session-head .pill")).to_have_text("Running")
    made = stage.ledger.find("grid8").parameters
    assert (made.movie_folder, made.particle_diameter_angstrom) == ("/data/krios/grid8", 120)
    assert not made.HasField("pixel_size_angstrom")
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator(".session-head .pill")).to_have_text("Paused")
    await page.get_by_role("button", name="Complete…").click()
    await page.get_by_role("dialog").get_by_role("button", name="Complete", exact=True).click()
    await expect(page.locator(".session-head .pill")).to_have_text("Completing")


async def test_micrographs_are_curated_and_parameters_changed(page: Page, stage: Stage) -> None:
    exposures = []
    for _ in range(5):
        exposures.append(await stage.microscope.find())
        await stage.microscope.finish(exposures[-1])
    await page.goto(f"{stage.address}/sessions/{stage.session.session_id}")
    await page.get_by_role("button", name="Curation…").click()
    await page.get_by_label("Attribute").select_option("particle_count")
    await expect(page.locator(".curation-counts")).to_have_text("5 used, 0 rejected")
    canvas = await page.locator(".scatter canvas").bounding_box()
    assert canvas is not None
    await page.mouse.move(canvas["x"] + 300, canvas["y"] + 12)  # the upper end, which is not set
    await page.mouse.down()
    await page.mouse.move(canvas["x"] + 300, canvas["y"] + canvas["height"] - 40, steps=4)
    await expect(page.locator(".curation-counts")).not_to_have_text("5 used, 0 rejected")  # before it is let go
    await page.mouse.up()
    await page.get_by_label("Least value").fill("12")
    await page.get_by_label("Least value").press("Enter")
    await page.keyboard.press("Escape")
    await page.locator(".tile").first.click()
    await page.get_by_role("button", name="Reject").click()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Parameters…").click()
    await page.locator("[name=picker_score_min]").fill("0,25")
    await expect(page.get_by_text("2 exposures will be redone.")).to_be_visible()
    await page.get_by_role("button", name="Apply").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)

    dragged, typed, verdict, tried, changed = stage.ledger.asked
    assert [(one.attribute, one.HasField("minimum")) for one in dragged.thresholds] == [("particle_count", False)]
    assert [(one.attribute, one.minimum) for one in typed.thresholds] == [("particle_count", 12.0)]
    assert (list(verdict.exposure_ids), verdict.override) == ([exposures[-1].exposure_id], OVERRIDE_REJECT)
    assert (tried.dry_run, changed.dry_run, changed.parameters.picker_score_min) == (True, False, 0.25)
    assert changed.parameters.particle_diameter_angstrom == stage.session.parameters.particle_diameter_angstrom


async def test_names_of_files_are_letters_not_markup(page: Page, stage: Stage) -> None:
    nasty = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
    exposure = await stage.ledger.add_exposure(stage.session.session_id, f"{nasty}.tiff", time=time.time())
    await stage.microscope.fail(exposure, f"{nasty} is not a movie.")
    await page.goto(f"{stage.address}/sessions/{stage.session.session_id}")
    await expect(page.locator(".tile-failure")).to_have_text(f"{nasty} is not a movie.")
    await page.locator(".tile").click()
    await expect(page.get_by_role("dialog").locator(".path")).to_have_text(f"{nasty}.tiff")
    assert await page.locator("img[src=x], script:not([src])").count() == 0


async def test_five_thousand_exposures_are_only_drawn_where_seen(page: Page, stage: Stage) -> None:
    microscope = stage.microscope
    started = time.time() - 90_000
    first = await microscope.find(time=started)
    await microscope.finish(first, time=started)
    exposures = stage.ledger.exposures[stage.session.session_id]
    for number in range(2, 5001):
        copy = type(first)()
        copy.CopyFrom(first)
        copy.exposure_id, copy.number = f"copy{number}", number
        copy.finish_time.FromNanoseconds(int((started + 17 * number) * 1e9))
        exposures.append(copy)
    await page.goto(f"{stage.address}/sessions/{stage.session.session_id}")
    await expect(page.locator(".stat", has_text="Found").locator(".stat-value")).to_have_text("5,000")
    assert 5 < await page.locator(".tile").count() < 30
    await page.locator(".strip-frame").evaluate("frame => { frame.scrollLeft = frame.scrollWidth }")
    await expect(page.locator(".tile-number").last).to_have_text("1")
    assert await page.locator(".tile").count() < 30
    await microscope.finish(await microscope.find())
    await expect(page.locator(".stat", has_text="Found").locator(".stat-value")).to_have_text("5,001")


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_nothing_overflows_at_usual_sizes(browser: Browser, stage: Stage, tmp_path: Path, scheme: str) -> None:
    for _ in range(12):
        await stage.microscope.finish(await stage.microscope.find())
    await stage.microscope.publish_classes(class_count=40)
    await add_resources(stage.ledger, stage.session.session_id, now=time.time())
    for width, height in SIZES:
        page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        for path in ("/", f"/sessions/{stage.session.session_id}", "/resources"):
            await page.goto(stage.address + path)
            await page.wait_for_load_state("load")
            await expect(page.locator("h1")).to_be_visible()
            wide = "() => document.querySelector('main').scrollWidth - document.querySelector('main').clientWidth"
            assert await page.evaluate(wide) <= 0
        await page.goto(f"{stage.address}/sessions/{stage.session.session_id}")
        await expect(page.locator(".tile img.shown").first).to_be_visible()
        await expect(page.locator(".class").first).to_be_visible()
        assert await page.locator("main").evaluate("main => main.scrollHeight - main.clientHeight") <= 0
        await page.screenshot(path=tmp_path / f"session-{width}-{scheme}.png")
        await page.close()
