// Points of a session on a canvas, with their histogram at the side and an interval whose ends are dragged.
import { type PointerEvent, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { useColourScheme, useSize } from "../hooks";

export interface Point {
  readonly key: string;
  readonly x: number;
  readonly y: number;
  readonly used: boolean;
}

export interface Interval {
  readonly minimum: number | null;
  readonly maximum: number | null;
}

type End = "minimum" | "maximum";

const MARGIN = { left: 54, right: 96, top: 12, bottom: 24 };
const BINS = 40;
const GRIP_PX = 9;

/** Where values lie on the canvas. */
export interface Frame {
  readonly width: number;
  readonly height: number;
  readonly x: readonly [number, number];
  readonly y: readonly [number, number];
}

export function Scatter(props: {
  readonly label: string;
  readonly points: readonly Point[];
  readonly interval: Interval;
  /** Called while an end is dragged, and with `done` when it is let go. */
  readonly onInterval?: (interval: Interval, done: boolean) => void;
  readonly onOpen?: (key: string) => void;
  readonly xTick: (value: number) => string;
}): ReactNode {
  const { points, interval, onInterval, onOpen, xTick } = props;
  const [box, size] = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = useColourScheme();
  const [dragged, setDragged] = useState<End | null>(null);
  const frame = useMemo(() => frameOf(points, interval, size), [points, interval, size]);
  useEffect(() => {
    if (canvas.current !== null && size.width > 0) draw(canvas.current, points, interval, frame, xTick);
  }, [points, interval, frame, size, colours, xTick]);

  const place = (event: PointerEvent): { readonly left: number; readonly top: number } => {
    const rectangle = event.currentTarget.getBoundingClientRect();
    return { left: event.clientX - rectangle.left, top: event.clientY - rectangle.top };
  };
  const down = (event: PointerEvent<HTMLCanvasElement>): void => {
    const end = onInterval === undefined ? null : gripAt(frame, interval, place(event).top);
    if (end !== null) {
      event.currentTarget.setPointerCapture(event.pointerId);
      setDragged(end);
    } else {
      const found = nearest(frame, points, place(event));
      if (found !== null) onOpen?.(found.key);
    }
  };
  const move = (event: PointerEvent<HTMLCanvasElement>, done: boolean): void => {
    if (dragged === null) {
      event.currentTarget.style.cursor = onInterval !== undefined && gripAt(frame, interval, place(event).top) ? "ns-resize" : "";
      return;
    }
    onInterval?.({ ...interval, [dragged]: valueAt(frame, place(event).top, dragged) }, done);
    if (done) setDragged(null);
  };
  return (
    <div ref={box} className="scatter">
      <canvas
        ref={canvas}
        role="img"
        aria-label={props.label}
        onPointerDown={down}
        onPointerMove={(event) => move(event, false)}
        onPointerUp={(event) => move(event, true)}
      />
    </div>
  );
}

/** Return the ranges that points and interval need, a little wider than they are. */
export function frameOf(
  points: readonly Point[],
  interval: Interval,
  size: { readonly width: number; readonly height: number },
): Frame {
  const ends = [interval.minimum, interval.maximum].filter((end) => end !== null);
  return {
    ...size,
    x: wider(points.map((point) => point.x)),
    y: wider([...points.map((point) => point.y), ...ends]),
  };
}

function wider(values: readonly number[]): readonly [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - margin, high + margin];
}

const left = (frame: Frame, x: number): number =>
  MARGIN.left + ((x - frame.x[0]) / (frame.x[1] - frame.x[0])) * (frame.width - MARGIN.left - MARGIN.right);

const top = (frame: Frame, y: number): number =>
  MARGIN.top + ((frame.y[1] - y) / (frame.y[1] - frame.y[0])) * (frame.height - MARGIN.top - MARGIN.bottom);

/** Return the end of the interval that the pointer holds: its line, or the edge of the plot where it has none. */
function gripAt(frame: Frame, interval: Interval, height: number): End | null {
  const high = interval.maximum === null ? MARGIN.top : top(frame, interval.maximum);
  const low = interval.minimum === null ? frame.height - MARGIN.bottom : top(frame, interval.minimum);
  if (Math.abs(height - high) <= GRIP_PX && Math.abs(height - high) <= Math.abs(height - low)) return "maximum";
  return Math.abs(height - low) <= GRIP_PX ? "minimum" : null;
}

/** Return the value at a height; null at the edge of the plot, where an end is taken away. */
function valueAt(frame: Frame, height: number, end: End): number | null {
  if (end === "maximum" && height <= MARGIN.top + 2) return null;
  if (end === "minimum" && height >= frame.height - MARGIN.bottom - 2) return null;
  const share = (height - MARGIN.top) / (frame.height - MARGIN.top - MARGIN.bottom);
  const value = frame.y[1] - share * (frame.y[1] - frame.y[0]);
  return Number(value.toPrecision(4));
}

function nearest(frame: Frame, points: readonly Point[], at: { readonly left: number; readonly top: number }): Point | null {
  let best: Point | null = null;
  let least = 12 ** 2;
  for (const point of points) {
    const distance = (left(frame, point.x) - at.left) ** 2 + (top(frame, point.y) - at.top) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

function draw(
  canvas: HTMLCanvasElement,
  points: readonly Point[],
  interval: Interval,
  frame: Frame,
  xTick: (value: number) => string,
): void {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(frame.width * ratio);
  canvas.height = Math.round(frame.height * ratio);
  const pen = canvas.getContext("2d");
  if (pen === null) return;
  const style = getComputedStyle(canvas);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  pen.scale(ratio, ratio);
  pen.font = `11px ${style.fontFamily}`;
  const right = frame.width - MARGIN.right;
  const bottom = frame.height - MARGIN.bottom;

  pen.fillStyle = colour("--dim");
  pen.strokeStyle = colour("--grid");
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const value of ticks(frame.y, 6)) {
    const height = top(frame, value);
    line(pen, MARGIN.left, height, right, height);
    pen.fillText(shortNumber(value), MARGIN.left - 8, height);
  }
  pen.textAlign = "center";
  for (const value of ticks(frame.x, 6)) pen.fillText(xTick(value), left(frame, value), bottom + 14);

  drawHistogram(pen, points, frame, colour("--point"), colour("--bad"));
  const radius = points.length > 2000 ? 1.6 : points.length > 300 ? 2.3 : 3.2;
  for (const used of [true, false]) {
    pen.fillStyle = colour(used ? "--accent" : "--bad");
    for (const point of points) {
      if (point.used !== used) continue;
      pen.beginPath();
      pen.arc(left(frame, point.x), top(frame, point.y), radius, 0, 2 * Math.PI);
      pen.fill();
    }
  }
  drawInterval(pen, interval, frame, colour("--text"), colour("--shade"));
}

function drawHistogram(pen: CanvasRenderingContext2D, points: readonly Point[], frame: Frame, good: string, bad: string): void {
  const [low, high] = frame.y;
  const counts = Array.from({ length: BINS }, () => ({ used: 0, rejected: 0 }));
  for (const point of points) {
    const bin = counts[Math.min(BINS - 1, Math.floor(((point.y - low) / (high - low)) * BINS))];
    if (bin !== undefined) bin[point.used ? "used" : "rejected"] += 1;
  }
  const most = Math.max(1, ...counts.map((bin) => bin.used + bin.rejected));
  const start = frame.width - MARGIN.right + 8;
  const unit = (MARGIN.right - 16) / most;
  const height = (frame.height - MARGIN.top - MARGIN.bottom) / BINS;
  counts.forEach((bin, place) => {
    const y = frame.height - MARGIN.bottom - (place + 1) * height;
    pen.fillStyle = good;
    pen.fillRect(start, y + 0.5, bin.used * unit, height - 1);
    pen.fillStyle = bad;
    pen.fillRect(start + bin.used * unit, y + 0.5, bin.rejected * unit, height - 1);
  });
}

function drawInterval(pen: CanvasRenderingContext2D, interval: Interval, frame: Frame, ink: string, shade: string): void {
  const right = frame.width - MARGIN.right;
  const low = MARGIN.top;
  const high = frame.height - MARGIN.bottom;
  const ends: readonly (readonly [number | null, number])[] = [
    [interval.maximum, low],
    [interval.minimum, high],
  ];
  for (const [end, edge] of ends) {
    const height = end === null ? edge : top(frame, end);
    pen.fillStyle = shade;
    pen.fillRect(MARGIN.left, Math.min(edge, height), right - MARGIN.left, Math.abs(height - edge));
    pen.strokeStyle = ink;
    pen.globalAlpha = end === null ? 0.35 : 1;
    line(pen, MARGIN.left, height, right, height);
    pen.fillStyle = ink;
    pen.fillRect((MARGIN.left + right) / 2 - 14, height - 2.5, 28, 5);
    pen.globalAlpha = 1;
  }
}

function line(pen: CanvasRenderingContext2D, x: number, y: number, toX: number, toY: number): void {
  pen.beginPath();
  pen.moveTo(x, Math.round(y) + 0.5);
  pen.lineTo(toX, Math.round(toY) + 0.5);
  pen.stroke();
}

/** Return round numbers within a range, at most about `most`. */
export function ticks([low, high]: readonly [number, number], most: number): readonly number[] {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((one) => one * power >= raw) ?? 10);
  const found: number[] = [];
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  return found;
}

/** Return a number in few characters. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size >= 10_000) return `${Number((value / 1000).toPrecision(4))}k`;
  return String(Number(value.toPrecision(4)));
}
