"""`report.html`: one page about a session that needs nothing but the files beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from statistics import median

from frazil.api.exposure.v1.exposure_pb2 import Exposure
from frazil.api.reconstruction.v1.reconstruction_pb2 import ClassAverages
from frazil.api.session.v1.session_pb2 import Session, SessionParameters

_THUMBNAILS_SHOWN = 60
_STYLE = """
:root { color-scheme: light dark; --ink: #15212b; --soft: #5b6b78; --line: #d9e1e7; --paper: #fff; --ground: #f3f6f8;
  --ice: #1b7fae }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4ecf2; --soft: #93a4b1; --line: #2b3a45; --paper: #16212a; --ground: #0e161c; --ice: #6cc4ec } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px }
h1 { margin: 0; font-size: 28px }
h2 { margin: 40px 0 12px; font-size: 18px }
.soft { color: var(--soft) }
.tiles, .charts, .thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 12px }
.tiles { margin-top: 24px }
.charts { grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)) }
.tile, figure { margin: 0; background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums }
.tile span, figcaption { color: var(--soft); font-size: 13px }
svg { width: 100%; height: auto; display: block }
svg circle { fill: var(--ice) }
svg line { stroke: var(--line) }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif }
.thumbs figure { padding: 6px }
.thumbs img { width: 100%; border-radius: 6px; display: block }
.thumbs figcaption { overflow-wrap: anywhere; font-size: 11px }
.sheet { max-width: 100%; image-rendering: pixelated; border-radius: 6px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; background: var(--paper); font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--line); font-size: 13px; vertical-align: top }
th { color: var(--soft); font-weight: 500 }
"""


def render_report(
    session: Session, exposures: Sequence[Exposure], classes: ClassAverages | None, thumbnails: Mapping[int, str]
) -> str:
    """Return the page; `thumbnails` maps an exposure's number to its picture relative to the page."""
    done = [exposure for exposure in exposures if exposure.state == Exposure.STATE_DONE]
    failed = [exposure for exposure in exposures if exposure.state == Exposure.STATE_QUARANTINED]
    state = Session.State.Name(session.state).removeprefix("STATE_").lower()
    title = html.escape(session.name)
    parts = [
        f"<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{title} · Frazil</title>",
        f'<meta name=viewport content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body><main>',
        f"<h1>{title}</h1><div class=soft>{html.escape(session.parameters.movie_folder)} · {state}</div>",
        _tiles(session, done, failed, classes),
        _charts(done),
        _class_section(classes),
        _thumbnail_section(done, thumbnails),
        _failure_section(failed),
        _parameter_section(session.parameters),
        "<p class=soft>Made by Frazil. Every number is in <a href=exposures.csv>exposures.csv</a> and "
        "<a href=session.json>session.json</a>.</p></main></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _tiles(session: Session, done: Sequence[Exposure], failed: Sequence[Exposure], classes: ClassAverages | None) -> str:
    results = [exposure.result for exposure in done]
    fits = [one.ctf_fit_resolution_angstrom for one in results if one.HasField("ctf_fit_resolution_angstrom")]
    defoci = [(one.defocus_u_angstrom + one.defocus_v_angstrom) / 20_000 for one in results]
    tiles = [
        (f"{len(done):,}", "micrographs"),
        (f"{len(failed):,}", "failed movies"),
        (f"{session.counts.particles:,}", "particles"),
        (_median(fits, "{:.1f} Å"), "median CTF fit"),
        (_median(defoci, "{:.2f} µm"), "median defocus"),
        (_median([one.motion_total_angstrom for one in results], "{:.1f} Å"), "median motion"),
    ]
    if classes is not None:
        tiles.append((f"{sum(one.selected for one in classes.classes)} of {len(classes.classes)}", "selected 2D classes"))
    cells = "".join(f"<div class=tile><b>{value}</b><span>{label}</span></div>" for value, label in tiles)
    return f"<div class=tiles>{cells}</div>"


def _charts(done: Sequence[Exposure]) -> str:
    if not done:
        return ""
    series = {
        "CTF fit resolution, Å": [
            (one.number, one.result.ctf_fit_resolution_angstrom)
            for one in done
            if one.result.HasField("ctf_fit_resolution_angstrom")
        ],
        "Mean defocus, µm": [
            (one.number, (one.result.defocus_u_angstrom + one.result.defocus_v_angstrom) / 20_000) for one in done
        ],
        "Total motion, Å": [(one.number, one.result.motion_total_angstrom) for one in done],
        "Particles": [(one.number, float(one.result.particle_count)) for one in done],
    }
    charts = "".join(
        f"<figure><figcaption>{label} over exposure number</figcaption>{_scatter(points)}</figure>"
        for label, points in series.items()
        if points
    )
    return f"<h2>Over the session</h2><div class=charts>{charts}</div>"


def _scatter(points: Sequence[tuple[int, float]]) -> str:
    """Return an SVG of values over numbers with the extremes written at the axes."""
    left, right, top, bottom = 46, 404, 8, 142
    numbers, values = [number for number, _ in points], [value for _, value in points]
    low, high = min(0.0, *values), max(values) or 1.0
    span_x = max(numbers) - min(numbers) or 1
    dots = "".join(
        f"<circle r=2.2 cx={left + (number - min(numbers)) / span_x * (right - left):.1f} "
        f"cy={bottom - (value - low) / ((high - low) or 1.0) * (bottom - top):.1f} />"
        for number, value in points
    )
    return (
        f'<svg viewBox="0 0 412 164"><line x1={left} y1={bottom} x2={right} y2={bottom} />'
        f"<line x1={left} y1={top} x2={left} y2={bottom} />"
        f"<text x=2 y={top + 8}>{high:.3g}</text><text x=2 y={bottom}>{low:.3g}</text>"
        f'<text x={left} y=160>{min(numbers)}</text><text x={right} y=160 text-anchor="end">{max(numbers)}</text>{dots}</svg>'
    )


def _class_section(classes: ClassAverages | None) -> str:
    if classes is None:
        return ""
    rows = "".join(
        f"<tr><td>{one.class_number}<td>{one.particle_count:,}<td>"
        f"{f'{one.resolution_angstrom:.1f} Å' if one.HasField('resolution_angstrom') else '–'}"
        f"<td>{one.effective_classes:.2f}<td>{'selected' if one.selected else 'junk' if one.junk else 'excluded'}"
        for one in sorted(classes.classes, key=lambda one: one.particle_count, reverse=True)
    )
    sheet = '<img class=sheet src="class2d/classes.png" alt="2D class averages">' if classes.sheet else ""
    head = "<tr><th>class<th>particles<th>resolution<th>effective classes<th>rank"
    return (
        f"<h2>2D classes</h2><p class=soft>{classes.particle_count:,} particles, revision {classes.revision}"
        f"{', final' if classes.final else ''}</p>{sheet}<div class=wide><table>{head}{rows}</table></div>"
    )


def _thumbnail_section(done: Sequence[Exposure], thumbnails: Mapping[int, str]) -> str:
    shown = [exposure for exposure in done if exposure.number in thumbnails]
    if not shown:
        return ""
    step = max(1, -(-len(shown) // _THUMBNAILS_SHOWN))
    figures = "".join(
        f'<figure><img loading=lazy src="{html.escape(thumbnails[one.number], quote=True)}" alt="">'
        f"<figcaption>{html.escape(one.file.relative_path)}</figcaption></figure>"
        for one in shown[::step]
    )
    which = "" if step == 1 else f", every {step}th"
    return f"<h2>Micrographs{which}</h2><div class=thumbs>{figures}</div>"


def _failure_section(failed: Sequence[Exposure]) -> str:
    if not failed:
        return ""
    rows = "".join(f"<tr><td>{html.escape(one.file.relative_path)}<td>{html.escape(one.failure)}" for one in failed)
    return f"<h2>Movies that failed</h2><div class=wide><table><tr><th>movie<th>why{rows}</table></div>"


def _parameter_section(parameters: SessionParameters) -> str:
    rows = "".join(
        f"<tr><td>{field.name.replace('_', ' ')}<td>{html.escape(_value(value))}" for field, value in parameters.ListFields()
    )
    return f"<h2>Parameters</h2><div class=wide><table>{rows}</table></div>"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _median(values: Sequence[float], form: str) -> str:
    return form.format(median(values)) if values else "–"
