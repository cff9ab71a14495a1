"""What a person says of 2D classes on the page reaches the scheduler as it was meant."""

from __future__ import annotations

import httpx
import pytest

from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassThresholds, ResetClassesRequest, SelectClassesRequest
from integration.web.fake_scheduler import FakeScheduler
from integration.web.test_curation import ID, change


async def test_classes_are_selected_excluded_released_and_begun_anew(client: httpx.AsyncClient, ledger: FakeScheduler) -> None:
    await ledger.add_session("grid7")
    path = "sessions/grid7/classes"
    assert (await change(client, f"{path}/select", select=[3], exclude=[1, 2], release=[4])).status_code == 200
    thresholds = {"particle_count_min": 100, "resolution_max_angstrom": 12.5}
    assert (await change(client, f"{path}/select", release_all=True, thresholds=thresholds)).status_code == 200
    assert (await change(client, f"{path}/reset", clear=True)).status_code == 200
    assert ledger.asked == [
        SelectClassesRequest(request_id=ID, session="grid7", select=[3], exclude=[1, 2], release=[4]),
        SelectClassesRequest(
            request_id=ID,
            session="grid7",
            release_all=True,
            thresholds=ClassThresholds(particle_count_min=100, resolution_max_angstrom=12.5),
        ),
        ResetClassesRequest(request_id=ID, session="grid7", clear=True),
    ]


@pytest.mark.parametrize(
    "body",
    [{"select": 3}, {"exclude": ["a"]}, {"select": [True]}, {"thresholds": [1]}, {"thresholds": {"beauty": 1}}],
)
async def test_what_names_no_classes_is_refused(
    client: httpx.AsyncClient, ledger: FakeScheduler, body: dict[str, object]
) -> None:
    await ledger.add_session("grid7")
    assert (await change(client, "sessions/grid7/classes/select", **body)).status_code == 400
    assert not ledger.asked
