// Numbers and times as text.
import { describe, expect, it } from "vitest";
import { count, duration, jobType, measure, memory, moment, roughDuration, shortCount } from "./format";

describe("missing numbers", () => {
  it.each([null, undefined, Number.NaN, Infinity])("%s is a dash", (value) => {
    for (const text of [count(value), shortCount(value), measure(value, 1, "Å"), duration(value), roughDuration(value), moment(value, 0), memory(value)]) {
      expect(text).toBe("–");
    }
  });
});

describe("numbers", () => {
  it.each([
    [0, "0"],
    [9999, "9,999"],
    [12_345, "12.3 k"],
    [999_499, "999 k"],
    [999_500, "1.00 M"],
    [1_234_567, "1.23 M"],
  ])("%d is %s", (value, text) => expect(shortCount(value)).toBe(text));
  it("have units", () => expect(measure(3.456, 1, "Å")).toBe("3.5 Å"));
  it("of memory are binary", () => expect(memory(81_008)).toBe("79 GiB"));
});

describe("durations", () => {
  it.each([
    [0, "0 s", "0 s"],
    [59.4, "59 s", "59 s"],
    [185, "3 min 05 s", "3 min"],
    [7620, "2 h 07 min", "2 h"],
    [273_600, "3 d 4 h", "3 d"],
    [-5, "0 s", "0 s"],
  ])("%d", (seconds, long, short) => {
    expect(duration(seconds)).toBe(long);
    expect(roughDuration(seconds)).toBe(short);
  });
});

describe("names", () => {
  it("of jobs are words, also for those not known here", () => {
    expect(jobType("class2d_streaming")).toBe("Streaming 2D");
    expect(jobType("refine3d_streaming")).toBe("Streaming 3D");
    expect(jobType("create_templates")).toBe("Create templates");
  });
});
