"""Random histories: a person scales, moves, hands over, alternates, starts and stops streaming, and deletes sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.session.v1 import session_pb2
from frazil.model.errors import ErrorKind, FrazilError
from frazil_scheduler.domain import curation, deletion, parameters, sessions
from frazil_scheduler.ledger import tables
from model.world import World

NAMES = ("a", "b")
PLANS: tuple[dict[str, int], ...] = (
    {"preprocess": 1},
    {"class2d_streaming": 1},
    {"preprocess": 1, "class2d_streaming": 1},
    {"preprocess": 1, "refine_streaming": 1},
    {"preprocess": 2},
    {},
)
CHANGES: tuple[dict[str, Any], ...] = (
    {"preprocessing_workers": 1},
    {"preprocessing_workers": 3},
    {"reconstruction_lane": "two"},
    {"reconstruction_lane": "default"},
    {"preprocessing_gpus": ["GPU-1"]},
    {"preprocessing_gpus": []},
    {"priority": 50},
    {"wait_for_exposures": True},
    {"auto_pause": session_pb2.ComputeResources.AUTO_PAUSE_IMMEDIATE, "auto_pause_idle_minutes": 2},
    {"auto_pause": session_pb2.ComputeResources.AUTO_PAUSE_UNSPECIFIED},
)
PARAMETERS: tuple[dict[str, Any], ...] = ({"picker_score_min": 0.2}, {"picker_score_min": 0.3}, {"box_size_px": 128}, {})
ALTERNATION = {"enabled": True, "update_interval_minutes": 2, "turn_minutes_min": 1}


class SessionRules:
    """Rules for a machine that has a `world` and `sessions`; "a" streams, "b" does not."""

    world: World
    sessions: dict[str, str]

    @rule(name=st.sampled_from(NAMES), change=st.sampled_from(CHANGES), now=st.sampled_from([True, True, False]))
    def a_person_changes_compute(self, name: str, change: dict[str, Any], now: bool) -> None:
        self._allowed(lambda: self.world.update(self.sessions[name], now=now, **change))

    @rule(enabled=st.booleans())
    def a_person_lets_jobs_alternate(self, enabled: bool) -> None:
        self._allowed(lambda: self.world.update(self.sessions["a"], alternation={**ALTERNATION, "enabled": enabled}))

    @rule(plan=st.sampled_from(PLANS), then=st.sampled_from(["", "", "take back", "pause", "complete", "newer", "restart"]))
    def a_person_hands_slots_over(self, plan: dict[str, int], then: str) -> None:
        session_id = self.sessions["a"]
        if self.world.row_of(session_id)["state"] == "PAUSED":
            self.world.change(session_id, "start")
        for node_id in self.world.nodes:
            self.world.settle(node_id)
        self._allowed(lambda: self.world.switch(session_id, **plan))
        match then:
            case "take back":
                self._allowed(lambda: self.world.switch(session_id))
            case "pause" | "complete":
                self._allowed(lambda: self.world.change(session_id, then))
            case "newer":
                self._allowed(lambda: self.world.switch(session_id, preprocess=1))
            case "restart":
                self.world.restart()

    @rule(job_type=st.sampled_from(["class2d_streaming", "class2d_streaming", "refine_streaming"]), start=st.booleans())
    def a_person_starts_or_stops_streaming(self, job_type: str, start: bool) -> None:
        self._allowed(lambda: self.world.stream(self.sessions["a"], job_type, start=start))

    @rule(
        name=st.sampled_from(NAMES),
        values=st.sampled_from(PARAMETERS),
        new_only=st.booleans(),
        redo_from=st.sampled_from(["", "", "pick"]),
    )
    def a_person_changes_parameters(self, name: str, values: dict[str, Any], new_only: bool, redo_from: str) -> None:
        def change(tx: Any) -> None:
            row = sessions.require(tx, self.sessions[name])
            request = session_pb2.UpdateParametersRequest(new_exposures_only=new_only, redo_from=redo_from)
            request.parameters.MergeFromString(row["parameters"])
            for field, value in values.items():
                setattr(request.parameters, field, value)
            parameters.change(tx, row, request)

        self._allowed(lambda: self.world.store.transact(change))

    @rule(name=st.sampled_from(NAMES), most=st.sampled_from([None, 2.0, 5.0]))
    def a_person_sets_thresholds(self, name: str, most: float | None) -> None:
        wanted = [] if most is None else [session_pb2.AttributeThreshold(attribute="particle_count", maximum=most)]
        self._allowed(
            lambda: self.world.store.transact(
                lambda tx: parameters.set_thresholds(tx, sessions.require(tx, self.sessions[name]), wanted)
            )
        )

    @rule(name=st.sampled_from(NAMES), place=st.integers(0, 3), word=st.sampled_from(exposure_pb2.Override.values()))
    def a_person_rejects_or_accepts(self, name: str, place: int, word: exposure_pb2.Override.ValueType) -> None:
        mine = self.world.rows(tables.exposure, tables.exposure.c.session_id == self.sessions[name])
        ids = [row["exposure_id"] for row in mine[place : place + 2]]
        self._allowed(
            lambda: self.world.store.transact(
                lambda tx: curation.override(tx, sessions.require(tx, self.sessions[name]), ids, word)
            )
        )

    @rule(name=st.sampled_from(NAMES))
    def a_person_deletes(self, name: str) -> None:
        session_id = self.sessions[name]

        def delete() -> None:
            self.world.store.transact(lambda tx: deletion.begin(tx, sessions.require(tx, session_id), delete_results=False))
            while not self.world.store.transact(lambda tx: deletion.forget_some(tx, session_id)):
                pass
            self.sessions[name] = self.world.create(name, until="" if name == "a" else "preprocess")

        self._allowed(delete)

    def _allowed(self, act: Callable[[], Any]) -> None:
        """Do what a person asks; to be told that it cannot be done now is fine."""
        try:
            act()
        except FrazilError as error:
            if error.kind not in (ErrorKind.CONFLICT, ErrorKind.INVALID):
                raise
