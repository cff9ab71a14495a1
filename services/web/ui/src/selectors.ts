// What the views compute from the records: counters, rates, medians, series for the plots.
import { known, type Maybe } from "./format";
import type { ExposureSummary } from "./records";

export interface Counts {
  readonly found: number;
  readonly ready: number;
  readonly running: number;
  readonly done: number;
  readonly quarantined: number;
  readonly particles: number;
}

/** Count exposures by state, and their particles. */
export function countExposures(exposures: readonly ExposureSummary[]): Counts {
  const counts = { found: exposures.length, ready: 0, running: 0, done: 0, quarantined: 0, particles: 0 };
  for (const exposure of exposures) {
    if (exposure.state === "ready") counts.ready += 1;
    else if (exposure.state === "running") counts.running += 1;
    else if (exposure.state === "done") counts.done += 1;
    else if (exposure.state === "quarantined") counts.quarantined += 1;
    if (!exposure.rejected) counts.particles += exposure.particle_count ?? 0;
  }
  return counts;
}

const RATE_WINDOW_SECONDS = 900;
const SHORTEST_SECONDS = 60;

/** Return events per hour over the last quarter of an hour, or since the first if that is later; null without any. */
export function hourlyRate(times: readonly Maybe[], now: number): number | null {
  let first = Infinity;
  let recent = 0;
  for (const time of times) {
    if (!known(time)) continue;
    first = Math.min(first, time);
    if (time > now - RATE_WINDOW_SECONDS) recent += 1;
  }
  if (!Number.isFinite(first)) return null;
  const span = Math.max(SHORTEST_SECONDS, Math.min(RATE_WINDOW_SECONDS, now - first));
  return (recent * 3600) / span;
}

/** Return the newest of some times, or null. */
export function newest(times: readonly Maybe[]): number | null {
  let found: number | null = null;
  for (const time of times) if (known(time) && (found === null || time > found)) found = time;
  return found;
}

/** Return the median of the numbers that are known, or null. */
export function median(values: readonly Maybe[]): number | null {
  return quantile(values, 0.5);
}

/** Return a quantile of the numbers that are known, or null. */
export function quantile(values: readonly Maybe[], share: number): number | null {
  const sorted = values.filter(known).sort((a, b) => a - b);
  if (sorted.length === 0) return null;
  const place = (sorted.length - 1) * share;
  const low = sorted[Math.floor(place)] ?? 0;
  const high = sorted[Math.ceil(place)] ?? low;
  return low + (high - low) * (place - Math.floor(place));
}

/** Return exposures for the strip: those being processed, then the finished ones, newest first. */
export function stripOrder(exposures: readonly ExposureSummary[], failedOnly: boolean): readonly ExposureSummary[] {
  const shown = exposures.filter((exposure) =>
    failedOnly ? exposure.state === "quarantined" : exposure.state !== "ready" || exposure.version !== "",
  );
  const rank = (exposure: ExposureSummary): number =>
    exposure.state === "running" ? Infinity : (exposure.finish_time ?? 0);
  return shown.sort((a, b) => compare(rank(b), rank(a)) || b.number - a.number);
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}

export interface Series {
  /** The exposure behind each point. */
  readonly exposures: readonly ExposureSummary[];
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
  /** Running median, for the eye. */
  readonly trend: readonly (number | null)[];
  /** Where the axis ends: beyond it points are drawn at the edge. */
  readonly top: number;
}

export type Axis = "time" | "number";

/** Return one value of the finished exposures over time or number. */
export function series(
  exposures: readonly ExposureSummary[],
  axis: Axis,
  value: (exposure: ExposureSummary) => Maybe,
): Series {
  const done = exposures.filter((exposure) => exposure.state === "done");
  const along = (exposure: ExposureSummary): number =>
    axis === "time" ? (exposure.finish_time ?? exposure.register_time ?? 0) : exposure.number;
  const sorted = [...done].sort((a, b) => along(a) - along(b) || a.number - b.number);
  const raw = sorted.map((exposure) => value(exposure)).map((found) => (known(found) ? found : null));
  const high = quantile(raw, 0.98);
  const top = high === null || high <= 0 ? 1 : high * 1.2;
  return {
    exposures: sorted,
    x: sorted.map(along),
    y: raw.map((found) => (found === null ? null : Math.min(found, top))),
    trend: runningMedian(raw, 25),
    top,
  };
}

/** Return the median of each value's neighbourhood of `width` points; null where fewer than five are known. */
export function runningMedian(values: readonly (number | null)[], width: number): (number | null)[] {
  const half = Math.floor(width / 2);
  return values.map((_, place) => {
    const around = values.slice(Math.max(0, place - half), place + half + 1).filter(known);
    return around.length < 5 ? null : median(around);
  });
}

/** Mean defocus in µm. */
export function defocusMicrometre(exposure: ExposureSummary): number | null {
  const { defocus_u_angstrom: u, defocus_v_angstrom: v } = exposure;
  return known(u) && known(v) && (u !== 0 || v !== 0) ? (u + v) / 2e4 : null;
}
