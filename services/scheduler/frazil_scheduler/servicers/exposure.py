"""ExposureService: registers and lists exposures."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from google.protobuf.json_format import MessageToJson

from frazil.api.exposure.v1 import exposure_pb2, exposure_pb2_grpc
from frazil.api.scheduler.v1 import scheduler_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import control, curation, exposures, sessions, validation
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger.records import exposure_record
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.servicers import page_size, page_start

BATCH = 64
CURATED_MAX = 1000


class ExposureServicer(exposure_pb2_grpc.ExposureServiceServicer):
    """See exposure.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def RegisterExposures(
        self, request_iterator: AsyncIterator[exposure_pb2.RegisterExposuresRequest], context: Any
    ) -> AsyncIterator[exposure_pb2.RegisterExposuresResponse]:
        """Register movies as they come; what has come meanwhile shares a transaction."""
        arrived: asyncio.Queue[exposure_pb2.RegisterExposuresRequest | None] = asyncio.Queue(maxsize=BATCH)
        reader = asyncio.create_task(_fill(request_iterator, arrived))
        try:
            over = False
            while not over:
                batch, over = await _next_batch(arrived)
                replies = await self._hub.store.run(partial(exposures.register_all, requests=batch))
                for reply in replies:
                    yield reply
            await reader
        finally:
            reader.cancel()

    async def ListExposures(
        self, request: exposure_pb2.ListExposuresRequest, context: Any
    ) -> exposure_pb2.ListExposuresResponse:
        """List a session's exposures by their number."""
        size = page_size(request.page_size, 200, 1000)
        after = page_start(request.page_token)
        names = {number: name.removeprefix("STATE_") for name, number in exposure_pb2.Exposure.State.items()}
        states = [names.get(state, "") for state in request.states]

        def body(tx: Transaction) -> exposure_pb2.ListExposuresResponse:
            session = sessions.require(tx, request.session)
            rows = exposures.page(tx, session["session_id"], after, size, states, newest_first=request.newest_first)
            more = len(rows) == size and not (request.newest_first and rows[-1]["number"] == 1)
            return exposure_pb2.ListExposuresResponse(
                exposures=[exposure_record(row) for row in rows], next_page_token=str(rows[-1]["number"]) if more else ""
            )

        return await self._hub.store.look(body)

    async def GetExposure(self, request: exposure_pb2.GetExposureRequest, context: Any) -> exposure_pb2.Exposure:
        """Return one exposure."""
        return exposure_record(await self._hub.store.look(lambda tx: exposures.require(tx, request.exposure_id)))

    async def CurateExposures(
        self, request: exposure_pb2.CurateExposuresRequest, context: Any
    ) -> exposure_pb2.CurateExposuresResponse:
        """Reject or accept exposures by hand."""
        if len(request.exposure_ids) > CURATED_MAX:
            raise FrazilError("TOO_MANY_EXPOSURES", f"Name at most {CURATED_MAX:,} exposures at a time.")

        def curate(tx: Transaction) -> exposure_pb2.CurateExposuresResponse:
            session = sessions.require(tx, request.session)
            changed = curation.override(tx, session, request.exposure_ids, request.override)
            return exposure_pb2.CurateExposuresResponse(exposures=changed)

        reply_type = exposure_pb2.CurateExposuresResponse
        return await self._hub.store.run(lambda tx: tx.once(request, reply_type, lambda: curate(tx)))

    async def TestExposure(self, request: exposure_pb2.TestExposureRequest, context: Any) -> exposure_pb2.TestExposureResponse:
        """Process one exposure with other parameters, beside its session."""
        validation.check_parameters(request.parameters)

        def submit(tx: Transaction) -> exposure_pb2.TestExposureResponse:
            row = exposures.require(tx, request.exposure_id)
            said = MessageToJson(request.parameters, preserving_proto_field_name=True, indent=None)
            job = scheduler_pb2.SubmitJobRequest(
                session=row["session_id"],
                job_type="exposure_test",
                parameters={"exposure": row["exposure_id"], "parameters": said},
            )
            job_id = control.submit(tx, self._hub.lanes, job)["job_id"]
            return exposure_pb2.TestExposureResponse(job_id=job_id, folder=f"tests/{row['exposure_id']}/{job_id}")

        return await self._hub.store.run(lambda tx: tx.once(request, exposure_pb2.TestExposureResponse, lambda: submit(tx)))

    async def RetryQuarantined(
        self, request: exposure_pb2.RetryQuarantinedRequest, context: Any
    ) -> exposure_pb2.RetryQuarantinedResponse:
        """Put quarantined exposures back into the queue, unless the session is about to end."""

        def retry(tx: Transaction) -> exposure_pb2.RetryQuarantinedResponse:
            session = sessions.require(tx, request.session)
            if session["state"] in ("COMPLETING", "COMPLETED"):
                raise FrazilError(
                    "SESSION_STATE_WRONG",
                    f"Session {session['name']} is {session['state'].lower()}; exposures can be retried only before that.",
                    kind=ErrorKind.CONFLICT,
                )
            return exposure_pb2.RetryQuarantinedResponse(count=exposures.retry_quarantined(tx, session["session_id"]))

        return await self._hub.store.run(lambda tx: tx.once(request, exposure_pb2.RetryQuarantinedResponse, lambda: retry(tx)))


async def _fill(
    source: AsyncIterator[exposure_pb2.RegisterExposuresRequest],
    arrived: asyncio.Queue[exposure_pb2.RegisterExposuresRequest | None],
) -> None:
    try:
        async for request in source:
            await arrived.put(request)
    finally:
        await arrived.put(None)


async def _next_batch(
    arrived: asyncio.Queue[exposure_pb2.RegisterExposuresRequest | None],
) -> tuple[list[exposure_pb2.RegisterExposuresRequest], bool]:
    """Return what has arrived, at least one unless the stream is over, and whether it is."""
    batch: list[exposure_pb2.RegisterExposuresRequest] = []
    request = await arrived.get()
    while request is not None:
        batch.append(request)
        if len(batch) == BATCH or arrived.empty():
            return batch, False
        request = arrived.get_nowait()
    return batch, True
