"""Exposures: what became of each movie, curation, tests of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from frazil.api.exposure.v1.exposure_pb2 import (
    CurateExposuresRequest,
    Exposure,
    GetExposureRequest,
    ListExposuresRequest,
    Override,
    RetryQuarantinedRequest,
    TestExposureRequest,
    TestExposureResponse,
)
from frazil.api.session.v1.session_pb2 import (
    SessionParameters,
)
from frazil.client._connection import Connection


class ExposureCalls(Connection):
    """What can be asked of exposures."""

    def exposures(
        self, session: str, *, states: Sequence[Exposure.State.ValueType] = (), newest_first: bool = False
    ) -> Iterator[Exposure]:
        """Yield a session's exposures in order of their number, page by page; `states` empty means all."""
        token = ""
        while True:
            request = ListExposuresRequest(
                session=session, page_size=500, page_token=token, states=states, newest_first=newest_first
            )
            reply = self._call(self._exposures.ListExposures, request)
            yield from reply.exposures
            token = reply.next_page_token
            if not token:
                return

    def get_exposure(self, exposure_id: str) -> Exposure:
        """Return one exposure by identity."""
        return self._call(self._exposures.GetExposure, GetExposureRequest(exposure_id=exposure_id))

    def retry_quarantined(self, session: str) -> int:
        """Put a session's quarantined exposures back into the queue; returns how many."""
        return self._change(self._exposures.RetryQuarantined, RetryQuarantinedRequest(session=session)).count

    def curate(self, session: str, exposure_ids: Sequence[str], override: Override.ValueType) -> Sequence[Exposure]:
        """Reject or accept exposures by hand, or let thresholds decide again."""
        request = CurateExposuresRequest(session=session, exposure_ids=exposure_ids, override=override)
        return self._change(self._exposures.CurateExposures, request).exposures

    def test_exposure(self, exposure_id: str, parameters: SessionParameters) -> TestExposureResponse:
        """Process one exposure with other parameters, as an auxiliary job, into a folder of its own."""
        request = TestExposureRequest(exposure_id=exposure_id, parameters=parameters)
        return self._change(self._exposures.TestExposure, request)
