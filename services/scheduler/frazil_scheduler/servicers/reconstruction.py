"""ReconstructionService: reads class averages, volumes and particle blocks."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

from typing import Any

from frazil.api.reconstruction.v1 import reconstruction_pb2, reconstruction_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import blocks, class_selection, reconstruction, sessions, templates, volumes
from frazil_scheduler.hub import Hub
from frazil_scheduler.ledger.records import block_record
from frazil_scheduler.ledger.transaction import Transaction
from frazil_scheduler.servicers import page_size


class ReconstructionServicer(reconstruction_pb2_grpc.ReconstructionServiceServicer):
    """See reconstruction.proto."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def GetClassAverages(
        self, request: reconstruction_pb2.GetClassAveragesRequest, context: Any
    ) -> reconstruction_pb2.ClassAverages:
        """Return the newest classification of a session."""

        def body(tx: Transaction) -> reconstruction_pb2.ClassAverages:
            session = sessions.require(tx, request.session)
            newest = reconstruction.newest_averages(tx, session)
            if newest is None:
                sentence = f"Session {session['name']} has no class averages yet."
                raise FrazilError("CLASS_AVERAGES_MISSING", sentence, kind=ErrorKind.NOT_FOUND)
            return newest

        return await self._hub.store.look(body)

    async def GetVolume(self, request: reconstruction_pb2.GetVolumeRequest, context: Any) -> reconstruction_pb2.Volume:
        """Return a session's newest volume."""

        def body(tx: Transaction) -> reconstruction_pb2.Volume:
            session = sessions.require(tx, request.session)
            newest = volumes.newest(tx, session["session_id"], request.kind)
            if newest is None:
                sentence = f"Session {session['name']} has no such volume yet."
                raise FrazilError("VOLUME_MISSING", sentence, kind=ErrorKind.NOT_FOUND)
            return newest

        return await self._hub.store.look(body)

    async def ListParticleBlocks(
        self, request: reconstruction_pb2.ListParticleBlocksRequest, context: Any
    ) -> reconstruction_pb2.ListParticleBlocksResponse:
        """List particle blocks after a sequence number."""
        size = page_size(request.page_size, 1000, 10_000)

        def body(tx: Transaction) -> reconstruction_pb2.ListParticleBlocksResponse:
            session = sessions.require(tx, request.session)
            rows = blocks.read(tx, session["session_id"], request.after_sequence, size)
            return reconstruction_pb2.ListParticleBlocksResponse(blocks=[block_record(row) for row in rows])

        return await self._hub.store.look(body)

    async def SelectClasses(
        self, request: reconstruction_pb2.SelectClassesRequest, context: Any
    ) -> reconstruction_pb2.SelectClassesResponse:
        """Choose 2D classes."""

        def body(tx: Transaction) -> reconstruction_pb2.SelectClassesResponse:
            session = sessions.require(tx, request.session)
            return tx.once(
                request,
                reconstruction_pb2.SelectClassesResponse,
                lambda: class_selection.select(tx, session, request),
            )

        return await self._hub.store.run(body)

    async def ResetClasses(
        self, request: reconstruction_pb2.ResetClassesRequest, context: Any
    ) -> reconstruction_pb2.ResetClassesResponse:
        """Begin 2D classification anew, or clear it."""

        def change(tx: Transaction) -> reconstruction_pb2.ResetClassesResponse:
            class_selection.reset(tx, sessions.require(tx, request.session), clear=request.clear)
            return reconstruction_pb2.ResetClassesResponse()

        return await self._hub.store.run(
            lambda tx: tx.once(request, reconstruction_pb2.ResetClassesResponse, lambda: change(tx))
        )

    async def ListTemplates(
        self, request: reconstruction_pb2.ListTemplatesRequest, context: Any
    ) -> reconstruction_pb2.ListTemplatesResponse:
        """List templates for the picker."""

        def body(tx: Transaction) -> reconstruction_pb2.ListTemplatesResponse:
            session_id = sessions.require(tx, request.session)["session_id"] if request.session else ""
            return reconstruction_pb2.ListTemplatesResponse(templates=templates.newest_first(tx, session_id))

        return await self._hub.store.look(body)
