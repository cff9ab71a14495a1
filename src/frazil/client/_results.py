"""Results: 2D classes, templates, volumes and particles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from frazil.api.reconstruction.v1.reconstruction_pb2 import (
    ClassAverages,
    ClassThresholds,
    GetClassAveragesRequest,
    GetVolumeRequest,
    ListParticleBlocksRequest,
    ListTemplatesRequest,
    ParticleBlock,
    ResetClassesRequest,
    SelectClassesRequest,
    SelectClassesResponse,
    Templates,
    Volume,
)
from frazil.api.session.v1 import session_pb2
from frazil.api.session.v1.session_pb2 import (
    Session,
)
from frazil.client._sessions import SessionCalls
from frazil.model.errors import ErrorKind, FrazilError


class ResultCalls(SessionCalls):
    """What can be asked of results."""

    def class_averages(self, session: str) -> ClassAverages | None:
        """Return the newest classification of a session; None before the first."""
        try:
            return self._call(self._reconstruction.GetClassAverages, GetClassAveragesRequest(session=session))
        except FrazilError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        self.get_session(session)  # raises when it is the session that is not there
        return None

    def select_classes(
        self,
        session: str,
        *,
        select: Sequence[int] = (),
        exclude: Sequence[int] = (),
        release: Sequence[int] = (),
        release_all: bool = False,
        thresholds: ClassThresholds | None = None,
        all_particles: bool = False,
    ) -> SelectClassesResponse:
        """Choose 2D classes by number and by thresholds; from then on 3D takes only particles of selected ones.

        `release` lets thresholds and ranking decide on a class again; `all_particles` lets 3D take every particle after all.
        """
        request = SelectClassesRequest(
            session=session,
            select=select,
            exclude=exclude,
            release=release,
            release_all=release_all,
            thresholds=thresholds,
            all_particles=all_particles,
        )
        return self._change(self._reconstruction.SelectClasses, request)

    def reset_classes(self, session: str, *, clear: bool = False) -> None:
        """Begin 2D classification anew, or stop it and take its classes away."""
        self._change(self._reconstruction.ResetClasses, ResetClassesRequest(session=session, clear=clear))

    def templates(self, session: str = "") -> Sequence[Templates]:
        """Return templates for the picker, of one session or of all, the newest first."""
        return self._call(self._reconstruction.ListTemplates, ListTemplatesRequest(session=session)).templates

    def choose_templates(
        self, session: str, job_id: str, numbers: Sequence[int] = (), *, new_exposures_only: bool = False
    ) -> Session:
        """Let a session pick with the templates of a job: those with these numbers, else those that the job suggests.

        What is picked already is picked anew, unless `new_exposures_only`.
        """
        request = session_pb2.ChooseTemplatesRequest(
            session=session, job_id=job_id, numbers=numbers, new_exposures_only=new_exposures_only
        )
        return self._change(self._sessions.ChooseTemplates, request)

    def volume(self, session: str, kind: Volume.Kind.ValueType = Volume.KIND_UNSPECIFIED) -> Volume | None:
        """Return the newest volume of a session, of a kind or of any; None before the first."""
        try:
            return self._call(self._reconstruction.GetVolume, GetVolumeRequest(session=session, kind=kind))
        except FrazilError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
        self.get_session(session)  # raises when it is the session that is not there
        return None

    def particle_blocks(self, session: str, *, after: int = 0) -> Iterator[ParticleBlock]:
        """Yield a session's particle blocks after a sequence number, page by page."""
        while True:
            request = ListParticleBlocksRequest(session=session, after_sequence=after)
            blocks = self._call(self._reconstruction.ListParticleBlocks, request).blocks
            if not blocks:
                return
            yield from blocks
            after = blocks[-1].sequence
