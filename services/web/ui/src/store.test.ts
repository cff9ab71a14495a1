// The reducer: whatever the order of snapshots, events, repeats and cuts, the state is what the ledger says.
import { describe, expect, it } from "vitest";
import type { ExposureSummary, Job, Session } from "./records";
import { type Action, initialState, mergeExposures, type PageEvent, reduce, type State } from "./store";

const COLUMNS = ["exposure_id", "number", "state", "pick_count"] as const;

function exposure(number: number, state: ExposureSummary["state"] = "ready"): ExposureSummary {
  return { exposure_id: `e${number}`, number, state, pick_count: null } as ExposureSummary;
}

function exposureEvent(sequence: number, record: ExposureSummary): PageEvent {
  return { sequence, time: 0, session_id: "s1", kind: "exposure_changed", type: "exposure", record };
}

function batch(...events: PageEvent[]): Action {
  return { type: "batch", sequence: events.at(-1)?.sequence ?? 0, offset: 0, events };
}

function snapshot(sequence: number, numbers: readonly number[]): Action {
  const rows = numbers.map((number) => [`e${number}`, number, "done", 7]);
  return {
    type: "snapshot",
    sequence,
    offset: 2.5,
    sessions: [{ session_id: "s1", state: "running" } as Session],
    nodes: [],
    lanes: [],
    jobs: [],
    exposures: { columns: COLUMNS, rows },
    classes: null,
    volume: null,
  };
}

const run = (actions: readonly Action[]): State => actions.reduce(reduce, initialState);

describe("snapshot", () => {
  it("turns rows into records and goes live", () => {
    const state = run([snapshot(10, [1, 2])]);
    expect(state.loaded).toBe(true);
    expect(state.connection).toBe("live");
    expect(state.sequence).toBe(10);
    expect(state.clockOffset).toBe(2.5);
    expect(state.exposures[1]).toEqual({ exposure_id: "e2", number: 2, state: "done", pick_count: 7 });
  });

  it("replaces everything after a reset, even with a smaller sequence", () => {
    const state = run([snapshot(500, [1, 2, 3]), snapshot(3, [1])]);
    expect(state.sequence).toBe(3);
    expect(state.exposures).toHaveLength(1);
  });
});

describe("events", () => {
  it("put records at their place by number, whatever their order", () => {
    const order = [4, 1, 3, 2, 5];
    const events = order.map((number, place) => exposureEvent(11 + place, exposure(number)));
    const state = run([snapshot(10, []), batch(...events)]);
    expect(state.exposures.map((one) => one.number)).toEqual([1, 2, 3, 4, 5]);
    expect(state.sequence).toBe(15);
  });

  it("take a cluster's node away once it has ended", () => {
    const node = (sequence: number, state: string): PageEvent =>
      ({ sequence, type: "node", record: { node_id: "n1", state } }) as unknown as PageEvent;
    const up = run([snapshot(10, []), batch(node(11, "up"))]);
    expect(up.nodes).toHaveLength(1);
    expect(reduce(up, batch(node(12, "ended"))).nodes).toEqual([]);
  });

  it("take a session away once it is deleted", () => {
    const gone = { sequence: 11, type: "session", kind: "session_deleted", session_id: "s1", record: { session_id: "s1" } };
    expect(run([snapshot(10, []), batch(gone as unknown as PageEvent)]).sessions).toEqual([]);
  });

  it("change nothing when they come twice", () => {
    const events = [exposureEvent(11, exposure(1)), exposureEvent(12, exposure(1, "running")), exposureEvent(13, exposure(2))];
    const once = run([snapshot(10, []), batch(...events)]);
    const twice = run([snapshot(10, []), batch(...events.slice(0, 2)), batch(...events)]);
    expect(twice).toEqual(once);
  });

  it("older than the state are left out: a late repeat does not turn time back", () => {
    const state = run([
      snapshot(10, []),
      batch(exposureEvent(11, exposure(1)), exposureEvent(12, exposure(1, "done"))),
      batch(exposureEvent(11, exposure(1))),
    ]);
    expect(state.exposures[0]?.state).toBe("done");
    expect(state.sequence).toBe(12);
  });

  it("split into any batches give the same state", () => {
    const events = Array.from({ length: 60 }, (_, place) =>
      exposureEvent(11 + place, exposure(1 + ((place * 7) % 20), place % 3 === 0 ? "done" : "running")),
    );
    const whole = run([snapshot(10, []), batch(...events)]);
    for (const size of [1, 7, 25]) {
      const parts: Action[] = [];
      for (let start = 0; start < events.length; start += size) parts.push(batch(...events.slice(start, start + size)));
      expect(run([snapshot(10, []), ...parts])).toEqual(whole);
    }
  });

  it("move the resume token on even when they are filtered away", () => {
    expect(run([snapshot(10, []), { type: "batch", sequence: 99, offset: 0, events: [] }]).sequence).toBe(99);
  });

  it("keep a list that nothing touched, so that nothing is drawn again", () => {
    const before = run([snapshot(10, [1])]);
    const job: PageEvent = {
      sequence: 11,
      time: 0,
      session_id: "s1",
      kind: "job_waiting",
      type: "job",
      record: { job_id: "j1", state: "waiting" } as Job,
    };
    const after = reduce(before, batch(job));
    expect(after.exposures).toBe(before.exposures);
    expect(after.jobs).toHaveLength(1);
  });

  it("bring newer classes and ignore older revisions of the same job", () => {
    const classes = (sequence: number, revision: number, job_id = "j2"): PageEvent =>
      ({ sequence, time: 0, session_id: "s1", kind: "k", type: "classes", record: { revision, job_id } }) as PageEvent;
    expect(run([snapshot(10, []), batch(classes(11, 5), classes(12, 4))]).classes?.revision).toBe(5);
    expect(run([snapshot(10, []), batch(classes(11, 5), classes(12, 1, "j9"))]).classes?.job_id).toBe("j9");
  });

  it("keep only the newest notices", () => {
    const notices = Array.from(
      { length: 80 },
      (_, place): PageEvent => ({
        sequence: 11 + place,
        time: place,
        session_id: "s1",
        kind: "notice",
        type: "notice",
        record: { level: "warning", sentence: `${place}` },
      }),
    );
    const state = run([snapshot(10, []), batch(...notices)]);
    expect(state.notices).toHaveLength(50);
    expect(state.notices.at(-1)?.sentence).toBe("79");
  });
});

describe("connection", () => {
  it("keeps what is known through an outage", () => {
    const state = run([snapshot(10, [1, 2]), { type: "outage", problem: "The scheduler does not answer." }]);
    expect(state.connection).toBe("outage");
    expect(state.exposures).toHaveLength(2);
    const back = reduce(state, { type: "alive", offset: 1 });
    expect([back.connection, back.problem, back.clockOffset]).toEqual(["live", "", 1]);
  });
});

describe("mergeExposures", () => {
  it("inserts into a long list without sorting it anew", () => {
    const list = Array.from({ length: 5000 }, (_, place) => exposure(place * 2 + 2));
    const merged = mergeExposures(list, [exposure(1), exposure(5001), exposure(10_001), exposure(4, "done")]);
    expect(merged).toHaveLength(5003);
    expect(merged[0]?.number).toBe(1);
    expect(merged.at(-1)?.number).toBe(10_001);
    expect(merged.every((one, place) => place === 0 || (merged[place - 1]?.number ?? 0) < one.number)).toBe(true);
    expect(merged.find((one) => one.number === 4)?.state).toBe("done");
    expect(list).toHaveLength(5000);
  });
});
