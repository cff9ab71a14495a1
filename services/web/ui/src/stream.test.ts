// Following: the snapshot's sequence, resumes, resets, silence; with a browser made of stand-ins.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createStore, type Store } from "./store";
import { type Browser, follow } from "./stream";

class Stream extends EventTarget {
  readyState = 1;
  onerror: (() => void) | null = null;
  constructor(readonly address: string) {
    super();
  }
  close(): void {
    this.readyState = 2;
  }
  send(kind: string, data: unknown, lastEventId = "0"): void {
    this.dispatchEvent(Object.assign(new Event(kind), { data: JSON.stringify(data), lastEventId }));
  }
}

const SNAPSHOT = { time: 1000, session: { session_id: "s1" }, exposures: { columns: [], rows: [] }, classes: null, volume: null, nodes: [], lanes: [], jobs: [] };

let streams: Stream[];
let answers: { status: number; body: unknown }[];
let asked: string[];
let store: Store;
let now: number;
let timers: { run: () => void; at: number; id: number }[];
let stop: () => void;

const browser: Browser = {
  openStream: (address) => {
    const stream = new Stream(address);
    streams.push(stream);
    return stream as unknown as EventSource;
  },
  now: () => now,
  setTimer: (run, ms) => {
    const id = timers.length + 1;
    timers.push({ run, at: now + ms, id });
    return id;
  },
  clearTimer: (id) => {
    timers = timers.filter((timer) => timer.id !== id);
  },
};

/** Let time pass: run the timers that are due, in order, and what they started. */
async function pass(ms: number): Promise<void> {
  const end = now + ms;
  for (;;) {
    await settle();
    const due = timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
    if (due === undefined) break;
    timers = timers.filter((timer) => timer !== due);
    now = due.at;
    due.run();
  }
  now = end;
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

beforeEach(() => {
  streams = [];
  answers = [];
  asked = [];
  timers = [];
  now = 1_000_000;
  store = createStore();
  vi.stubGlobal("document", Object.assign(new EventTarget(), { hidden: false }));
  vi.stubGlobal("fetch", (path: string) => {
    asked.push(path);
    const answer = answers.shift() ?? { status: 200, body: { ...SNAPSHOT, sequence: 10 } };
    return Promise.resolve({ ok: answer.status < 400, status: answer.status, json: () => Promise.resolve(answer.body) });
  });
});

afterEach(() => {
  stop();
  vi.unstubAllGlobals();
});

const newest = (): Stream => streams.at(-1) as Stream;

describe("follow", () => {
  it("opens the stream where the snapshot ends", async () => {
    stop = follow(store, "s 1", browser);
    await settle();
    expect(asked[0]).toBe("/api/sessions/s%201/snapshot");
    expect(newest().address).toBe("/api/events?session=s%201&after=10");
  });

  it("goes on after the last batch when the stream has to be opened anew", async () => {
    stop = follow(store, "s1", browser);
    await settle();
    newest().send("batch", { time: 1000, events: [] }, "25");
    newest().close();
    newest().onerror?.();
    expect(store.get().connection).toBe("lost");
    await pass(1000);
    expect(newest().address).toContain("after=25");
    newest().send("heartbeat", { time: 1000 }, "25");
    expect(store.get().connection).toBe("live");
  });

  it("leaves a dropped stream to the browser, which resumes by itself", async () => {
    stop = follow(store, "s1", browser);
    await settle();
    newest().readyState = 0;
    newest().onerror?.();
    await pass(2000);
    expect(streams).toHaveLength(1);
    expect(store.get().connection).toBe("lost");
  });

  it("takes a new snapshot after a reset", async () => {
    stop = follow(store, "s1", browser);
    await settle();
    answers.push({ status: 200, body: { ...SNAPSHOT, sequence: 3 } });
    newest().send("reset", { time: 1000 });
    await settle();
    expect(newest().address).toContain("after=3");
  });

  it("says an outage and tries again, ever more slowly, until the snapshot comes", async () => {
    for (let time = 0; time < 3; time += 1) {
      answers.push({ status: 503, body: { reason: "SCHEDULER_UNREACHABLE", sentence: "The scheduler does not answer." } });
    }
    stop = follow(store, "s1", browser);
    await settle();
    expect(store.get()).toMatchObject({ connection: "outage", problem: "The scheduler does not answer.", loaded: false });
    await pass(1000 + 2000);
    expect(asked).toHaveLength(3);
    await pass(4000);
    expect(store.get().connection).toBe("live");
  });

  it("gives up on a session that is not known", async () => {
    answers.push({ status: 404, body: { reason: "SESSION_NOT_FOUND", sentence: "There is no such session." } });
    stop = follow(store, "nope", browser);
    await pass(4000);
    expect(store.get().missing).toBe(true);
    expect(streams).toHaveLength(0);
  });

  it("opens the stream anew when it is silent for too long", async () => {
    stop = follow(store, "s1", browser);
    await pass(30_000);
    expect(streams).toHaveLength(1);
    await pass(15_000);
    expect(streams.length).toBeGreaterThan(1);
    expect(streams[0]?.readyState).toBe(2);
  });

  it("gives the stream back while nobody looks, and resumes where it was", async () => {
    stop = follow(store, "s1", browser);
    await settle();
    newest().send("batch", { time: 1000, events: [] }, "30");
    Object.assign(document, { hidden: true });
    document.dispatchEvent(new Event("visibilitychange"));
    newest().send("heartbeat", { time: 1000 }, "30");
    await pass(61_000);
    expect(newest().readyState).toBe(2);
    Object.assign(document, { hidden: false });
    document.dispatchEvent(new Event("visibilitychange"));
    expect(newest().readyState).toBe(1);
    expect(newest().address).toContain("after=30");
  });

  it("does nothing any more once stopped", async () => {
    stop = follow(store, "s1", browser);
    await settle();
    stop();
    const before = asked.length;
    await pass(60_000);
    expect(asked).toHaveLength(before);
    expect(newest().readyState).toBe(2);
  });
});
