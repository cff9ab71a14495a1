"""ReconstructionService: reads class averages, volumes and particle blocks."""

# ruff: noqa: ARG002 the signatures are gRPC's

from __future__ import annotations

from typing import Any

from frazil.api.reconstruction.v1 import reconstruction_pb2, reconstruction_pb2_grpc
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import blocks, reconstruction, sessions, volumes
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
            newest = reconstruction.newest_averages(tx, session["session_id"])
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
