// What views compute before they draw.
import { describe, expect, it } from "vitest";
import type { ClassAverage, Job, Profile } from "../records";
import { parseRoute, sessionPath } from "../router";
import { thresholdsFrom, toggled } from "./class_selection";
import { sortClasses } from "./classes";
import { countJobs, handOver } from "./compute";
import { trackPath } from "./exposure";
import type { ExposureSummary } from "../records";
import { intervalWords, passes, withInterval } from "./curation";
import { profileTexts, readForm } from "./new_session";
import { changesOf } from "./parameters";
import { keptOf } from "./picks_tuner";
import { ticks } from "./scatter";
import { placeInBox } from "./picks";
import { linePoints } from "./volume";

describe("a curve", () => {
  it("fills its box, upwards", () => {
    expect(linePoints([[2, 0], [3, 0.5], [4, 1]], 0, 1)).toBe("0.00,40.00 50.00,20.00 100.00,0.00");
  });
  it("of one point or one height stays in it", () => {
    expect(linePoints([[2, 5]], 5, 5)).toBe("0.00,40.00");
  });
});

describe("addresses", () => {
  it("survive any session name", () => {
    for (const name of ["grid7", "a/b?c#d", "Ünï %20", ".."]) {
      const [path = "", query = ""] = sessionPath(name, "e/1&x").split("?");
      expect(parseRoute(path, query)).toEqual({ view: "session", session: name, exposure: "e/1&x" });
    }
  });
  it("that name nothing are said to be unknown", () => {
    expect(parseRoute("/nowhere", "").view).toBe("unknown");
    expect(parseRoute("/sessions/%E0%A4%A", "").view).toBe("unknown");
    expect(parseRoute("/", "").view).toBe("sessions");
  });
});

describe("placeInBox", () => {
  const picture = { width: 4000, height: 3000 };
  it("contains: the whole picture lies inside, centred", () => {
    const place = placeInBox(picture, { width: 1000, height: 600 }, "contain");
    expect(place.scale).toBeCloseTo(0.2);
    expect([place.left, place.top]).toEqual([100, 0]);
  });
  it("covers: the box is full, what is beyond is cut on both sides alike", () => {
    const place = placeInBox(picture, { width: 1000, height: 600 }, "cover");
    expect(place.scale).toBeCloseTo(0.25);
    expect([place.left, place.top]).toEqual([0, -75]);
  });
});

describe("sortClasses", () => {
  const make = (class_number: number, particle_count: number, resolution_angstrom: number | null): ClassAverage => ({
    class_number,
    particle_count,
    resolution_angstrom,
    effective_classes: 1,
    junk: false as const, selected: true, restarts: 0, mean_probability: 0.5, quality: 1,
  });
  const classes = [make(1, 10, null), make(2, 30, 9), make(3, 30, 8), make(4, 5, 7)];
  const order = (by: "count" | "resolution" | "number"): number[] => sortClasses(classes, by).map((one) => one.class_number);
  it("by count, resolution or number; missing resolutions come last, ties keep their number's order", () => {
    expect(order("count")).toEqual([2, 3, 1, 4]);
    expect(order("resolution")).toEqual([4, 3, 2, 1]);
    expect(order("number")).toEqual([1, 2, 3, 4]);
  });
});

describe("selecting classes", () => {
  it("a click excludes what is selected and selects what is not", () => {
    const one = { class_number: 7, selected: true } as ClassAverage;
    expect(toggled(one)).toEqual({ exclude: [7] });
    expect(toggled({ ...one, selected: false })).toEqual({ select: [7] });
  });
  it("empty fields are no thresholds, words are refused", () => {
    expect(thresholdsFrom({ particle_count_min: "200", resolution_max_angstrom: " " }, true)).toEqual({
      particle_count_min: 200,
      resolution_max_angstrom: 0,
      effective_classes_max: 0,
      ignore_ranking: true,
    });
    expect(thresholdsFrom({ resolution_max_angstrom: "fine" }, false)).toBeNull();
    expect(thresholdsFrom({ effective_classes_max: "-1" }, false)).toBeNull();
  });
});

describe("trackPath", () => {
  it("fits into its box whatever the motion", () => {
    for (const scale of [0, 0.01, 5, 300]) {
      const track = { x_angstrom: [0, scale, 2 * scale, null], y_angstrom: [0, -scale, scale, 1] };
      const found = trackPath(track, 100);
      const numbers = found?.path.slice(1).split(/[L,]/).map(Number) ?? [];
      expect(numbers).toHaveLength(6);
      expect(numbers.every((value) => value >= 0 && value <= 100)).toBe(true);
    }
  });
  it("needs two points", () => {
    expect(trackPath({ x_angstrom: [1], y_angstrom: [1] }, 100)).toBeNull();
    expect(trackPath({ x_angstrom: [], y_angstrom: [] }, 100)).toBeNull();
  });
});

describe("readForm", () => {
  it("sends numbers as numbers, also with a comma, and leaves out what is empty", () => {
    const session = readForm({
      name: " grid7 ",
      movie_folder: "/data/7",
      particle_diameter_angstrom: "140,5",
      pixel_size_angstrom: " ",
      gain_rotate: "1",
      preprocessing_workers: "2",
      until: "",
    });
    expect(session).toEqual({
      name: "grid7",
      parameters: { movie_folder: "/data/7", particle_diameter_angstrom: 140.5, gain_rotate: 1 },
      compute: { preprocessing_workers: 2 },
    });
  });
  it("sends what is no number as it is, so that the server can say so", () => {
    expect(readForm({ voltage_kv: "three" }).parameters).toEqual({ voltage_kv: "three" });
  });
  it("keeps a name of digits a name", () => {
    expect(readForm({ name: "42", movie_glob: "7" })).toEqual({ name: "42", parameters: { movie_glob: "7" }, compute: {} });
  });
});

describe("profiles", () => {
  it("fill the form with what they set, and reading it back gives the same", () => {
    const profile = {
      name: "krios",
      parameters: { pixel_size_angstrom: 1.06, gain_rotate: 1, camera: "k3", until: "", movie_folder: "", class_count: 0 },
      compute: {
        preprocessing_workers: 2,
        preprocessing_lane: "big",
        reconstruction_lane: "default",
        streaming_start: "on_request",
        auto_pause: "unspecified",
        alternation: { enabled: true },
      },
    } as unknown as Profile;
    const read = readForm(profileTexts(profile));
    expect(read.parameters).toEqual({ pixel_size_angstrom: 1.06, gain_rotate: 1, camera: "k3" });
    expect(read.compute).toEqual({
      preprocessing_workers: 2,
      preprocessing_lane: "big",
      streaming_start: "on_request",
      alternation: { enabled: true },
    });
  });
});

describe("handing a slot over", () => {
  const job = (job_type: string, state: string, parked = false): Job => ({ job_type, state, parked }) as unknown as Job;
  const jobs = [
    job("preprocess", "running"),
    job("preprocess", "running"),
    job("preprocess", "cancelled"),
    job("class2d_streaming", "paused", true),
  ];
  it("counts what runs or waits, not what is parked or over", () => {
    expect(countJobs(jobs)).toEqual({ preprocess: 2 });
  });
  it("takes one worker's slot for the streaming job", () => {
    expect(handOver(jobs, "class2d_streaming")).toEqual({ preprocess: 1, class2d_streaming: 1 });
  });
});

describe("curation", () => {
  const attributes = [
    { name: "ctf", title: "CTF fit", unit: "Å" },
    { name: "motion", title: "Motion", unit: "Å" },
  ];
  const exposure = (values: readonly (number | null)[], override = "unspecified"): ExposureSummary =>
    ({ attributes: values, override }) as unknown as ExposureSummary;

  it("lets intervals decide, an unknown number lies outside, and a person's word wins", () => {
    const fine = [{ attribute: "ctf", minimum: null, maximum: 5 }];
    expect([4, 5, 6, null].map((fit) => passes(exposure([fit, 1]), fine, attributes))).toEqual([true, true, false, false]);
    expect(passes(exposure([9, 1], "accept"), fine, attributes)).toBe(true);
    expect(passes(exposure([1, 1], "reject"), [], attributes)).toBe(false);
  });

  it("replaces one interval and keeps the others", () => {
    const now = [
      { attribute: "ctf", minimum: null, maximum: 5 },
      { attribute: "motion", minimum: 1, maximum: null },
    ];
    expect(withInterval(now, "ctf", { minimum: 2, maximum: 4 })).toEqual([now[1], { attribute: "ctf", minimum: 2, maximum: 4 }]);
    expect(withInterval(now, "motion", { minimum: null, maximum: null })).toEqual([now[0]]);
    expect([intervalWords({ minimum: 2, maximum: null }), intervalWords({ minimum: 1, maximum: 12_345 })]).toEqual(["≥ 2", "1–12.35k"]);
  });

  it("keeps candidates as the worker does: the picker's own threshold unless one is set, and the best so many", () => {
    const found = { score: [0.5, 0.4, 0.3, null], power: [1, 5, 1, 1], score_min: 0.35 };
    const none = { score: null, powerMin: null, powerMax: null, most: 4000 };
    expect(keptOf(found, none)).toEqual([true, true, false, false]);
    expect(keptOf(found, { ...none, score: 0.1, powerMax: 4 })).toEqual([true, false, true, false]);
    expect(keptOf(found, { ...none, score: 0.1, most: 2 })).toEqual([true, true, false, false]);
    expect(keptOf({ ...found, score_min: null }, none)).toEqual([false, false, false, false]);
  });

  it("sends only what was changed, and null for what was emptied", () => {
    const shown = { picker_score_min: "0.2", box_size_px: "", picker: "" };
    expect(changesOf(shown, { picker_score_min: " ", box_size_px: "256", picker: "" })).toEqual({
      picker_score_min: null,
      box_size_px: 256,
    });
    expect(changesOf(shown, { picker_shapes: "ring, ellipse" })).toEqual({ picker_shapes: ["ring", "ellipse"] });
  });

  it("labels axes with round numbers inside their range", () => {
    expect(ticks([0.3, 9.7], 6)).toEqual([2, 4, 6, 8]);
    expect(ticks([-1, 1], 4)).toEqual([-1, -0.5, 0, 0.5, 1]);
  });
});
