// Keeps a store current: a snapshot, then the event stream from there, again and again, whatever breaks.
import { ApiError, getSession, getSessionSnapshot, getSessions, getSnapshot } from "./api";
import type { Action, PageEvent, Store } from "./store";

const RETRY_MS = 1000;
const RETRY_MOST_MS = 5000;
const POLL_MS = 5000;
const SILENCE_MS = 35_000; // heartbeats come every 10 s
const HIDDEN_MS = 60_000; // a browser allows six streams per host: a tab nobody sees gives its one back

/** What `follow` needs of the browser; tests bring their own. */
export interface Browser {
  readonly openStream: (address: string) => EventSource;
  readonly now: () => number;
  readonly setTimer: (run: () => void, ms: number) => number;
  readonly clearTimer: (timer: number) => void;
}

const realBrowser: Browser = {
  openStream: (address) => new EventSource(address),
  now: () => Date.now(),
  setTimer: (run, ms) => window.setTimeout(run, ms),
  clearTimer: (timer) => window.clearTimeout(timer),
};

/** Follow one session ("" for all sessions and the resources); returns how to stop. */
export function follow(store: Store, session: string, browser: Browser = realBrowser): () => void {
  const follower = new Follower(store, session, browser);
  follower.start();
  return () => follower.stop();
}

class Follower {
  private stopped = false;
  private source: EventSource | null = null;
  private retryMs = RETRY_MS;
  private heardAt = 0;
  private hiding: number | null = null;
  private readonly timers = new Set<number>();

  constructor(
    private readonly store: Store,
    private readonly session: string,
    private readonly browser: Browser,
  ) {}

  start(): void {
    document.addEventListener("visibilitychange", this.visibilityChanged);
    void this.load();
    this.later(() => void this.poll(), POLL_MS);
    this.later(() => this.watch(), POLL_MS);
  }

  stop(): void {
    this.stopped = true;
    this.close();
    for (const timer of this.timers) this.browser.clearTimer(timer);
    document.removeEventListener("visibilitychange", this.visibilityChanged);
  }

  /** Take a snapshot, then follow the events from there; when that fails try again, ever more slowly. */
  private async load(): Promise<void> {
    this.close();
    try {
      const action = this.session === "" ? await allSnapshot(this.offset) : await oneSnapshot(this.session, this.offset);
      if (this.stopped) return;
      this.retryMs = RETRY_MS;
      this.store.dispatch(action);
      this.open();
    } catch (error) {
      if (!this.stopped) this.failed(error);
    }
  }

  private failed(error: unknown): void {
    const problem = error instanceof Error ? error.message : "The page failed.";
    if (error instanceof ApiError && error.status === 404) {
      this.store.dispatch({ type: "missing", problem });
      return;
    }
    const unreachable = error instanceof ApiError && error.reason === "SCHEDULER_UNREACHABLE";
    this.store.dispatch({ type: unreachable ? "outage" : "lost", problem });
    this.later(() => void this.load(), this.retryMs);
    this.retryMs = Math.min(RETRY_MOST_MS, this.retryMs * 2);
  }

  private open(): void {
    this.close();
    this.heardAt = this.browser.now();
    const types = this.session === "" ? "&types=session,job,node,notice" : "";
    const query = `session=${encodeURIComponent(this.session)}&after=${this.store.get().sequence}${types}`;
    const opened = this.browser.openStream(`/api/events?${query}`);
    this.source = opened;
    for (const kind of ["batch", "heartbeat", "recovered", "outage", "reset", "gone"] as const) {
      opened.addEventListener(kind, (message) => {
        if (this.source !== opened) return;
        this.heardAt = this.browser.now();
        const { data, lastEventId } = message as MessageEvent<string>;
        this.heard(kind, JSON.parse(data) as StreamData, Number(lastEventId));
      });
    }
    opened.onerror = () => {
      if (this.source !== opened) return;
      this.store.dispatch({ type: "lost", problem: "The connection to Frazil's web service is lost; trying again." });
      // The browser tries again by itself with the last id, except after an answer that is no event stream.
      if (opened.readyState === 2) this.later(() => this.open(), RETRY_MS);
    };
  }

  private close(): void {
    this.source?.close();
    this.source = null;
  }

  private heard(kind: "batch" | "heartbeat" | "recovered" | "outage" | "reset" | "gone", data: StreamData, id: number): void {
    switch (kind) {
      case "batch":
        this.store.dispatch({ type: "batch", sequence: id, offset: this.offset(data.time), events: data.events ?? [] });
        break;
      case "heartbeat":
      case "recovered":
        this.store.dispatch({ type: "alive", offset: this.offset(data.time) });
        break;
      case "outage":
        this.store.dispatch({ type: "outage", problem: data.sentence ?? "" });
        break;
      case "reset":
        void this.load();
        break;
      case "gone":
        this.close();
        this.store.dispatch({ type: "missing", problem: data.sentence ?? "" });
    }
  }

  /** Open the stream anew when even its heartbeats have stopped. */
  private watch(): void {
    if (this.source !== null && this.browser.now() - this.heardAt > SILENCE_MS) {
      this.store.dispatch({ type: "lost", problem: "The connection to Frazil's web service is silent; trying again." });
      this.open();
    }
    this.later(() => this.watch(), POLL_MS);
  }

  /** Counters and the last scan of a folder are not events of their own: they are asked for. */
  private async poll(): Promise<void> {
    if (this.source !== null && this.store.get().connection === "live") {
      try {
        const action = this.session === "" ? await allSessions(this.offset) : await oneSession(this.session);
        if (!this.stopped) this.store.dispatch(action);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error; // the event stream tells of every outage by itself
      }
    }
    if (!this.stopped) this.later(() => void this.poll(), POLL_MS);
  }

  private readonly visibilityChanged = (): void => {
    if (this.hiding !== null) this.browser.clearTimer(this.hiding);
    this.hiding = document.hidden ? this.later(() => this.close(), HIDDEN_MS) : null;
    if (!document.hidden && this.source === null && this.store.get().loaded && !this.store.get().missing) this.open();
  };

  private later(run: () => void, ms: number): number {
    const timer = this.browser.setTimer(() => {
      this.timers.delete(timer);
      if (!this.stopped) run();
    }, ms);
    this.timers.add(timer);
    return timer;
  }

  private readonly offset = (serverTime: number): number => serverTime - this.browser.now() / 1000;
}

interface StreamData {
  readonly time: number;
  readonly events?: readonly PageEvent[];
  readonly sentence?: string;
}

type Offset = (serverTime: number) => number;

async function allSnapshot(offset: Offset): Promise<Action> {
  const { sequence, time, sessions, nodes, lanes, jobs } = await getSnapshot();
  const nothing = { exposures: null, classes: null, volume: null };
  return { type: "snapshot", sequence, offset: offset(time), sessions, nodes, lanes, jobs, ...nothing };
}

async function oneSnapshot(session: string, offset: Offset): Promise<Action> {
  const { sequence, time, session: found, ...shown } = await getSessionSnapshot(session);
  return { type: "snapshot", sequence, offset: offset(time), sessions: [found], ...shown };
}

async function allSessions(offset: Offset): Promise<Action> {
  const { sessions, time } = await getSessions();
  return { type: "sessions", sessions, offset: offset(time) };
}

async function oneSession(session: string): Promise<Action> {
  return { type: "session", session: (await getSession(session)).session };
}
