// Counters, rates and series against what can be counted by hand.
import { describe, expect, it } from "vitest";
import type { ExposureSummary } from "./records";
import {
  countExposures,
  defocusMicrometre,
  hourlyRate,
  median,
  newest,
  quantile,
  runningMedian,
  series,
  stripOrder,
} from "./selectors";

function exposure(number: number, fields: Partial<ExposureSummary> = {}): ExposureSummary {
  return { exposure_id: `e${number}`, number, state: "done", version: "", rejected: "", ...fields } as ExposureSummary;
}

describe("countExposures", () => {
  it("adds up to what was found", () => {
    const states = ["ready", "running", "done", "done", "quarantined", "ready"] as const;
    const counts = countExposures(states.map((state, place) => exposure(place, { state, particle_count: state === "done" ? 5 : null })));
    expect(counts).toEqual({ found: 6, ready: 2, running: 1, done: 2, quarantined: 1, particles: 10 });
    expect(countExposures([exposure(1, { particle_count: 5, rejected: "By hand." })]).particles).toBe(0);
    expect(counts.ready + counts.running + counts.done + counts.quarantined).toBe(counts.found);
  });
});

describe("hourlyRate", () => {
  it("is the rate of a steady stream", () => {
    const times = Array.from({ length: 1000 }, (_, place) => 10_000 + place * 12);
    expect(hourlyRate(times, 10_000 + 999 * 12)).toBeCloseTo(300, -1);
  });

  it("knows a stream that has just begun, and one that has ended", () => {
    expect(hourlyRate([1000, 1060, 1120], 1120)).toBeCloseTo((3 * 3600) / 120);
    expect(hourlyRate([1000, 1060], 90_000)).toBe(0);
    expect(hourlyRate([null, undefined], 5)).toBeNull();
  });
});

describe("quantiles", () => {
  it("pass over what is missing or no number", () => {
    expect(median([3, null, 1, Number.NaN, 2, undefined])).toBe(2);
    expect(median([1, 2])).toBe(1.5);
    expect(median([null])).toBeNull();
    expect(quantile([0, 10, 20, 30, 40], 0.75)).toBe(30);
    expect(newest([4, null, 9, Number.NaN, 2])).toBe(9);
  });

  it("run along a list", () => {
    const values = Array.from({ length: 50 }, (_, place) => (place === 20 ? 1000 : place));
    const trend = runningMedian(values, 5);
    expect(trend[10]).toBe(10);
    expect(trend[20]).toBeLessThan(23); // one outlier does not move it
    expect(runningMedian([1, 2, null, null], 5)).toEqual([null, null, null, null]);
  });
});

describe("series", () => {
  it("is sorted, robust against outliers and safe for a missing fit", () => {
    const exposures = Array.from({ length: 200 }, (_, place) =>
      exposure(place + 1, {
        finish_time: 1000 - place,
        ctf_fit_resolution_angstrom: place === 7 ? 500 : place === 8 ? null : place === 9 ? Number.NaN : 4,
      }),
    );
    const found = series([...exposures, exposure(999, { state: "ready" })], "time", (one) => one.ctf_fit_resolution_angstrom);
    expect(found.x).toHaveLength(200);
    expect(found.x.every((x, place) => place === 0 || (found.x[place - 1] ?? 0) <= x)).toBe(true);
    expect(found.top).toBeCloseTo(4.8);
    expect(Math.max(...found.y.filter((y) => y !== null))).toBeCloseTo(4.8);
    expect(found.y.filter((y) => y === null)).toHaveLength(2);
    expect(found.exposures[found.y.findIndex((y) => (y ?? 0) > 4.5)]?.number).toBe(8);
  });

  it("of nothing can still be drawn", () => {
    const found = series([], "number", (one) => one.pick_count);
    expect([found.x, found.y, found.top]).toEqual([[], [], 1]);
    expect(series([exposure(1)], "number", () => null).top).toBe(1);
  });
});

describe("stripOrder", () => {
  const list = [
    exposure(1, { finish_time: 50 }),
    exposure(2, { state: "quarantined", finish_time: 70 }),
    exposure(3, { finish_time: 60 }),
    exposure(4, { state: "running" }),
    exposure(5, { state: "running" }),
    exposure(6, { state: "ready" }),
    exposure(7, { state: "ready", version: "7", finish_time: 65 }),
  ];
  it("shows what runs, then what was finished last, though it waits to be redone", () => {
    expect(stripOrder(list, false).map((one) => one.number)).toEqual([5, 4, 2, 7, 3, 1]);
  });
  it("or only what failed", () => {
    expect(stripOrder(list, true).map((one) => one.number)).toEqual([2]);
  });
});

describe("defocusMicrometre", () => {
  it("is the mean, and nothing where nothing was fitted", () => {
    expect(defocusMicrometre(exposure(1, { defocus_u_angstrom: 16_000, defocus_v_angstrom: 14_000 }))).toBeCloseTo(1.5);
    expect(defocusMicrometre(exposure(1, { defocus_u_angstrom: 0, defocus_v_angstrom: 0 }))).toBeNull();
    expect(defocusMicrometre(exposure(1))).toBeNull();
  });
});
