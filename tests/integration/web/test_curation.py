"""Parameters, thresholds, verdicts and tests of parameters from the page reach the scheduler as they were meant."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.io.particles import CANDIDATE_DTYPE
from frazil.rpc.attributes import ATTRIBUTES
from integration.web.conftest import CHANGE
from integration.web.fake_scheduler import FakeScheduler

ID = "request-0001"


async def change(client: httpx.AsyncClient, path: str, **body: object) -> httpx.Response:
    return await client.post(f"/api/{path}", json={"request_id": ID, **body}, headers=CHANGE)


async def test_changed_parameters_are_sent_with_all_others_and_null_unsets(
    client: httpx.AsyncClient, ledger: FakeScheduler
) -> None:
    session = await ledger.add_session("grid7", pixel_size_angstrom=0.83)
    session.parameters.picker_score_min = 0.2
    wanted = session_pb2.SessionParameters()
    wanted.CopyFrom(session.parameters)
    wanted.ClearField("picker_score_min")
    wanted.box_size_px = 256
    wanted.picker_shapes.extend(["ellipse", "ring"])
    changes = {"picker_score_min": None, "box_size_px": 256, "picker_shapes": ["ellipse", "ring"]}
    reply = await change(client, "sessions/grid7/parameters", parameters=changes, dry_run=True, new_exposures_only=True)
    assert reply.status_code == 200
    assert ledger.asked == [
        session_pb2.UpdateParametersRequest(
            request_id=ID, session=session.session_id, parameters=wanted, new_exposures_only=True, dry_run=True
        )
    ]
    wrong = await change(client, "sessions/grid7/parameters", parameters={"box_size_px": "large", "beauty": 1})
    assert (wrong.status_code, set(wrong.json()["fields"])) == (400, {"box_size_px", "beauty"})


async def test_thresholds_and_verdicts(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    await ledger.add_session("grid7")
    rows = [{"attribute": "ctf_score", "minimum": 0.0, "maximum": None}]
    assert (await change(client, "sessions/grid7/thresholds", thresholds=rows)).status_code == 200
    assert (await change(client, "sessions/grid7/curate", exposure_ids=["e1"], override="reject")).status_code == 200
    assert ledger.asked == [
        session_pb2.UpdateThresholdsRequest(
            request_id=ID,
            session="grid7",
            thresholds=[session_pb2.AttributeThreshold(attribute="ctf_score", minimum=0.0)],
        ),
        exposure_pb2.CurateExposuresRequest(
            request_id=ID, session="grid7", exposure_ids=["e1"], override=exposure_pb2.OVERRIDE_REJECT
        ),
    ]
    assert (await change(client, "sessions/grid7/curate", exposure_ids=["e1"], override="maybe")).status_code == 400
    for wrong in ([{"attribute": "ctf_score", "minimum": "low"}], "all"):
        assert (await change(client, "sessions/grid7/thresholds", thresholds=wrong)).status_code == 400


async def test_candidates_and_what_a_test_left_are_read_from_the_session_s_folder(
    client: httpx.AsyncClient, ledger: FakeScheduler
) -> None:
    session = await ledger.add_session("grid7")
    exposure = await ledger.add_exposure(session.session_id, "a.tif")
    table = np.zeros(3, dtype=CANDIDATE_DTYPE)
    table["x_px"], table["y_px"], table["score"] = [5.5, 7.0, 9.0], [1.0, 2.0, 3.0], [0.5, 0.25, 0.125]
    exposure.result.folder, exposure.result.candidates = "results/e/1.1.1", "candidates.npy"
    exposure.result.pick_score_min = 0.2
    folder = Path(session.folder) / exposure.result.folder
    folder.mkdir(parents=True)
    np.save(folder / "candidates.npy", table)
    found = (await client.get(f"/api/exposures/{exposure.exposure_id}/candidates.json")).json()
    assert (found["x_px"], found["score"], found["score_min"]) == ([5.5, 7.0, 9.0], [0.5, 0.25, 0.125], 0.2)
    (folder / "candidates.npy").write_bytes(b"\x93NUMPY\x01\x00damaged")
    assert (await client.get(f"/api/exposures/{exposure.exposure_id}/candidates.json")).status_code == 404

    tests = Path(session.folder) / "tests" / exposure.exposure_id / "job-1"
    tests.mkdir(parents=True)
    (tests / "result.json").write_text(MessageToJson(exposure_pb2.ExposureResult(pick_count=7)))
    reply = await client.get(f"/api/exposures/{exposure.exposure_id}/tests/job-1/result.json")
    assert reply.json()["result"]["pick_count"] == reply.json()["attributes"]["pick_count"] == 7
    for name in ("job-1/secret.json", "job-2/result.json", "%2e%2e/result.json"):
        assert (await client.get(f"/api/exposures/{exposure.exposure_id}/tests/{name}")).status_code == 404


async def test_every_exposure_brings_its_attributes_in_the_order_of_their_table(
    client: httpx.AsyncClient, ledger: FakeScheduler
) -> None:
    session = await ledger.add_session("grid7")
    exposure = await ledger.add_exposure(session.session_id, "a.tif")
    exposure.result.CopyFrom(exposure_pb2.ExposureResult(folder="f", defocus_u_angstrom=12_000, defocus_v_angstrom=10_000))
    shown = (await client.get("/api/sessions/grid7/snapshot")).json()
    assert [one["name"] for one in shown["attributes"]] == [one.name for one in ATTRIBUTES]
    row = dict(zip(shown["exposures"]["columns"], shown["exposures"]["rows"][0], strict=True))
    values = dict(zip((one["name"] for one in shown["attributes"]), row["attributes"], strict=True))
    assert (values["defocus_mean_angstrom"], values["astigmatism_angstrom"]) == (11_000, 2_000)
    assert values["ctf_fit_resolution_angstrom"] is None
    assert (row["override"], row["rejected"]) == ("unspecified", "")


@pytest.mark.parametrize("path", ["sessions/grid7/parameters", "exposures/e/test"])
async def test_parameters_that_are_no_object_are_refused(client: httpx.AsyncClient, ledger: FakeScheduler, path: str) -> None:
    session = await ledger.add_session("grid7")
    exposure = await ledger.add_exposure(session.session_id, "a.tif")
    reply = await change(client, path.replace("/e/", f"/{exposure.exposure_id}/"), parameters=[1])
    assert reply.status_code == 400
