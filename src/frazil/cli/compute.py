"""Where a session's jobs run: the flags of `frazil session create|plan|compute` and `frazil profile save`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frazil.cli.options import Given, takes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frazil.api.session.v1.session_pb2 import ComputeAdvice, ComputeResources


class AutoPause(StrEnum):
    """When a session pauses by itself."""

    OFF = "off"
    GRACEFUL = "graceful"
    IMMEDIATE = "immediate"


class StreamingStart(StrEnum):
    """When streaming jobs enter the queue."""

    WITH_SESSION = "with-session"
    ON_REQUEST = "on-request"


_PANEL = "Where and when jobs run"


def _option(kind: Any, name: str, help_text: str, **more: Any) -> tuple[Any, Any]:
    return Annotated[kind | None, typer.Option(name, help=help_text, rich_help_panel=_PANEL, **more)], None


_GPUS = "GPU or slot that they are bound to; may be repeated (all: the whole lane)."

FLAGS: dict[str, tuple[Any, Any]] = {
    "lane": _option(str, "--lane", "Lane of every job that no other flag gives one."),
    "preprocessing_lane": _option(str, "--preprocessing-lane", "Lane of the preprocessing workers."),
    "reconstruction_lane": _option(str, "--reconstruction-lane", "Lane of the streaming jobs."),
    "auxiliary_lane": _option(str, "--auxiliary-lane", "Lane of the auxiliary jobs."),
    "workers": _option(int, "--workers", "Number of preprocessing workers.", min=1),
    "priority": _option(int, "--priority", "0 to 100; the highest is served first.", min=0, max=100),
    "preprocessing_gpus": _option(list[str], "--preprocessing-gpu", f"Preprocessing workers: {_GPUS}"),
    "reconstruction_gpus": _option(list[str], "--reconstruction-gpu", f"Streaming jobs: {_GPUS}"),
    "auxiliary_gpus": _option(list[str], "--auxiliary-gpu", f"Auxiliary jobs: {_GPUS}"),
    "wait_for_exposures": _option(bool, "--wait-for-exposures/--no-wait", "Take no slot until the first movie is there."),
    "auto_pause": _option(AutoPause, "--auto-pause", "Pause by itself when nothing has come for a while."),
    "auto_pause_idle_minutes": _option(int, "--auto-pause-minutes", "That while.", min=1),
    "streaming_start": _option(StreamingStart, "--streaming-start", "When streaming jobs enter the queue."),
    "alternate": _option(bool, "--alternate/--no-alternate", "On few GPUs: preprocessing and streaming jobs take turns."),
    "update_interval": _option(int, "--update-interval", "Longest time without fresh classes then, minutes.", min=1),
    "turn_minutes_min": _option(int, "--turn-min", "Shortest turn then, minutes.", min=1),
}
"""By name: a flag that was not said is None, so that a change touches only what was said."""

takes_compute = takes(FLAGS, "compute")


def compute_resources(given: Given, before: ComputeResources | None = None) -> ComputeResources:
    """Return `before` (default: nothing set) with what the flags say."""
    from frazil.api.session.v1.session_pb2 import ComputeResources

    compute = ComputeResources()
    if before is not None:
        compute.CopyFrom(before)
    for role in ("preprocessing", "reconstruction", "auxiliary"):
        lane = given[f"{role}_lane"] or given["lane"]
        if lane:
            setattr(compute, f"{role}_lane", lane)
        gpus = given[f"{role}_gpus"]
        if gpus:
            compute.ClearField(f"{role}_gpus")  # type: ignore[arg-type]
            getattr(compute, f"{role}_gpus").extend(gpu for gpu in gpus if gpu != "all")
    if given["workers"]:
        compute.preprocessing_workers = given["workers"]
    for name in ("priority", "wait_for_exposures", "auto_pause_idle_minutes"):
        if given[name] is not None:
            setattr(compute, name, given[name])
    _set_modes(compute, given)
    return compute


def _set_modes(compute: ComputeResources, given: Given) -> None:
    if given["auto_pause"] is not None:
        words = {AutoPause.OFF: "UNSPECIFIED", AutoPause.GRACEFUL: "GRACEFUL", AutoPause.IMMEDIATE: "IMMEDIATE"}
        compute.auto_pause = compute.AutoPause.Value(f"AUTO_PAUSE_{words[given['auto_pause']]}")
    if given["streaming_start"] is not None:
        words_of_start = {StreamingStart.WITH_SESSION: "UNSPECIFIED", StreamingStart.ON_REQUEST: "ON_REQUEST"}
        compute.streaming_start = compute.StreamingStart.Value(f"STREAMING_START_{words_of_start[given['streaming_start']]}")
    if given["alternate"] is not None:
        compute.alternation.enabled = given["alternate"]
    if given["update_interval"] is not None:
        compute.alternation.update_interval_minutes = given["update_interval"]
    if given["turn_minutes_min"] is not None:
        compute.alternation.turn_minutes_min = given["turn_minutes_min"]


def compute_lines(compute: ComputeResources) -> Iterator[str]:
    """Say where and when jobs run, one line a role."""
    roles = (
        ("preprocessing", f"{compute.preprocessing_workers or 1} × in lane {compute.preprocessing_lane or 'default'}"),
        ("reconstruction", f"in lane {compute.reconstruction_lane or 'default'}"),
        ("auxiliary", f"in lane {compute.auxiliary_lane or 'default'}"),
    )
    for role, where in roles:
        gpus = getattr(compute, f"{role}_gpus")
        yield f"{role:<14} {where}" + (f", bound to {', '.join(gpus)}" if gpus else "")
    when = []
    if compute.priority:
        when.append(f"priority {compute.priority}")
    if compute.wait_for_exposures:
        when.append("takes no slot before the first movie")
    if compute.auto_pause:
        word = compute.AutoPause.Name(compute.auto_pause).removeprefix("AUTO_PAUSE_").lower()
        when.append(f"pauses by itself ({word}) after {compute.auto_pause_idle_minutes or 10} min without a movie")
    if compute.streaming_start:
        when.append("streaming jobs start on request")
    if compute.alternation.enabled:
        interval, turn = compute.alternation.update_interval_minutes or 20, compute.alternation.turn_minutes_min or 5
        when.append(f"jobs take turns of {turn} min or more, fresh classes every {interval} min")
    if when:
        yield f"{'':<14} {'; '.join(when)}"


def print_advice(advice: ComputeAdvice) -> None:
    """Print what will run together, what will wait, and what to do."""
    from frazil.cli.show import print_table

    rows = (
        (job.job_type, job.lane, f"{job.gpu_memory_min_mib:,} MiB", job.slot_key or "waits", job.sentence)
        for job in advice.jobs
    )
    print(f"{advice.free_slots} of {advice.slots} slots are free.")
    print_table(("job", "lane", "needs", "would get", "why"), rows, empty="No job would be queued.")
    for sentence in advice.sentences:
        print(sentence)
    if advice.HasField("suggestion"):
        print("Better:")
        for line in compute_lines(advice.suggestion):
            print(f"  {line}")
