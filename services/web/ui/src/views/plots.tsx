// Trends of the session: one point per micrograph, a running median, a click opens the micrograph.
import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import { measure, type Maybe } from "../format";
import { useColourScheme, useSize } from "../hooks";
import type { ExposureSummary } from "../records";
import { type Axis, defocusMicrometre, median, series, type Series } from "../selectors";
import { Choice } from "./parts";

interface Quantity {
  readonly name: string;
  readonly unit: string;
  readonly decimals: number;
  readonly value: (exposure: ExposureSummary) => Maybe;
}

const QUANTITIES: readonly Quantity[] = [
  { name: "CTF fit", unit: "Å", decimals: 1, value: (one) => one.ctf_fit_resolution_angstrom },
  { name: "Total motion", unit: "Å", decimals: 1, value: (one) => one.motion_total_angstrom },
  { name: "Defocus", unit: "µm", decimals: 2, value: defocusMicrometre },
  { name: "Picks", unit: "", decimals: 0, value: (one) => one.pick_count },
];

export function PlotsPanel(props: {
  readonly exposures: readonly ExposureSummary[];
  readonly onOpen: (exposure: ExposureSummary) => void;
}): ReactNode {
  const [axis, setAxis] = useState<Axis>("time");
  return (
    <div className="plots panel">
      <div className="panel-head">
        <h2>Trends</h2>
        <span className="dim">click a point to open its micrograph</span>
        <span className="spacer" />
        <Choice
          label="Horizontal axis"
          value={axis}
          options={[
            ["time", "Time"],
            ["number", "Number"],
          ]}
          onChange={setAxis}
        />
      </div>
      <div className="plots-grid">
        {QUANTITIES.map((quantity) => (
          <TrendPlot key={quantity.name} quantity={quantity} axis={axis} exposures={props.exposures} onOpen={props.onOpen} />
        ))}
      </div>
    </div>
  );
}

function TrendPlot(props: {
  readonly quantity: Quantity;
  readonly axis: Axis;
  readonly exposures: readonly ExposureSummary[];
  readonly onOpen: (exposure: ExposureSummary) => void;
}): ReactNode {
  const { quantity, axis, exposures } = props;
  const found = useMemo(() => series(exposures, axis, quantity.value), [exposures, axis, quantity]);
  const middle = useMemo(() => median(exposures.map(quantity.value)), [exposures, quantity]);
  const [frame, size] = useSize<HTMLDivElement>();
  const [hovered, setHovered] = useState<ExposureSummary | null>(null);
  const shown = hovered === null ? middle : quantity.value(hovered);
  const latest = useRef({ found, onOpen: props.onOpen });
  const plot = useRef<uPlot | null>(null);
  const colours = useColourScheme();

  useEffect(() => {
    latest.current = { found, onOpen: props.onOpen };
    plot.current?.setData(columns(found));
  }, [found, props.onOpen]);

  useEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const hooks = { hover: setHovered, latest: () => latest.current };
    const made = new uPlot(options(element, axis, hooks), columns(latest.current.found), element);
    plot.current = made;
    return () => {
      plot.current = null;
      made.destroy();
    };
  }, [frame, axis, colours]);

  useEffect(() => {
    if (size.width > 0 && size.height > 0) plot.current?.setSize(size);
  }, [size, axis, colours]);

  return (
    <figure className="plot">
      <figcaption>
        <span className="plot-name">{quantity.name}</span>
        <span className="plot-value">{measure(shown, quantity.decimals, quantity.unit)}</span>
        <span className="dim">{hovered === null ? "median" : `micrograph ${hovered.number}`}</span>
      </figcaption>
      <div ref={frame} className="plot-frame">
        {found.x.length === 0 && <div className="plot-empty">No finished micrograph yet</div>}
      </div>
    </figure>
  );
}

interface Hooks {
  readonly hover: (exposure: ExposureSummary | null) => void;
  readonly latest: () => { readonly found: Series; readonly onOpen: (exposure: ExposureSummary) => void };
}

function columns(found: Series): uPlot.AlignedData {
  return [[...found.x], [...found.y], [...found.trend]];
}

function options(element: HTMLElement, axis: Axis, hooks: Hooks): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const font = `11px ${style.fontFamily}`;
  const common = { font, stroke: colour("--dim"), ticks: { show: false }, grid: { stroke: colour("--grid"), width: 1 } };
  return {
    width: Math.max(80, element.clientWidth),
    height: Math.max(60, element.clientHeight),
    padding: [9, 8, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: axis === "time" },
      y: { range: () => [0, hooks.latest().found.top] },
    },
    axes: [
      { ...common, size: 24, gap: 4, space: 70, grid: { show: false }, values: axis === "time" ? clock : wholeNumbers },
      { ...common, size: 40, gap: 4, space: 32 },
    ],
    series: [
      {},
      {
        stroke: colour("--point"),
        paths: () => null,
        points: { show: true, size: 4, width: 0, fill: colour("--point"), stroke: colour("--point") },
      },
      { stroke: colour("--accent"), width: 1.5, points: { show: false }, spanGaps: true },
    ],
    cursor: {
      y: false,
      drag: { x: false, y: false },
      points: { size: 8, width: 2, one: true, fill: colour("--panel"), stroke: colour("--text") },
      dataIdx: (plot, place, nearestX) => (place === 1 ? nearestPoint(plot, nearestX) : nearestX),
    },
    hooks: {
      setCursor: [
        (plot) => {
          const over = plot.cursor.left !== undefined && plot.cursor.left >= 0;
          const place = over ? plot.cursor.idxs?.[1] : null;
          hooks.hover(place === null || place === undefined ? null : (hooks.latest().found.exposures[place] ?? null));
        },
      ],
      init: [
        (plot) => {
          plot.over.addEventListener("click", () => {
            const place = plot.cursor.idxs?.[1];
            const exposure = place === null || place === undefined ? undefined : hooks.latest().found.exposures[place];
            if (exposure !== undefined) hooks.latest().onOpen(exposure);
          });
        },
      ],
    },
  };
}

/** The point nearest to the pointer in both directions: neighbours in time can lie far apart in value. */
function nearestPoint(plot: uPlot, nearestX: number): number {
  const { left = -1, top = -1 } = plot.cursor;
  const xs = plot.data[0];
  const ys = plot.data[1];
  if (left < 0 || top < 0 || xs === undefined || ys === undefined) return nearestX;
  let best = nearestX;
  let bestDistance = Infinity;
  for (let place = 0; place < xs.length; place += 1) {
    const x = xs[place];
    const y = ys[place];
    if (x === undefined || y === undefined || y === null) continue;
    const dx = plot.valToPos(x, "x") - left;
    if (Math.abs(dx) > 40 && best !== nearestX) continue;
    const dy = plot.valToPos(y, "y") - top;
    const distance = dx * dx + dy * dy;
    if (distance < bestDistance) {
      best = place;
      bestDistance = distance;
    }
  }
  return best;
}

function wholeNumbers(_: uPlot, values: number[]): string[] {
  return values.map((value) => (Number.isInteger(value) ? value.toString() : ""));
}

function clock(_: uPlot, values: number[], __: number, ___: number, step: number): string[] {
  return values.map((value) => {
    const date = new Date(value * 1000);
    const two = (part: number): string => part.toString().padStart(2, "0");
    const text = `${two(date.getHours())}:${two(date.getMinutes())}`;
    return step < 60 ? `${text}:${two(date.getSeconds())}` : text;
  });
}
