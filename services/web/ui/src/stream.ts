// Keeps a store current: a snapshot, then the event stream from there, again and again, whatever breaks.
import { ApiError, getSession, getSessionSnapshot, getSessions, getSnapshot } from "./api";
import type { PageEvent, Store } from "./store";

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
  let stopped = false;
  let source: EventSource | null = null;
  let retryMs = RETRY_MS;
  let heardAt = browser.now();
  const timers = new Set<number>();

  const later = (run: () => void, ms: number): number => {
    const timer = browser.setTimer(() => {
      timers.delete(timer);
      if (!stopped) run();
    }, ms);
    timers.add(timer);
    return timer;
  };
  const offset = (serverTime: number): number => serverTime - browser.now() / 1000;

  const failed = (error: unknown): void => {
    const problem = error instanceof Error ? error.message : "The page failed.";
    if (error instanceof ApiError && error.status === 404) {
      store.dispatch({ type: "missing", problem });
      return;
    }
    const unreachable = error instanceof ApiError && error.reason === "SCHEDULER_UNREACHABLE";
    store.dispatch({ type: unreachable ? "outage" : "lost", problem });
    later(() => void load(), retryMs);
    retryMs = Math.min(RETRY_MOST_MS, retryMs * 2);
  };

  const load = async (): Promise<void> => {
    close();
    try {
      const action = session === "" ? await allSnapshot(offset) : await oneSnapshot(session, offset);
      if (stopped) return;
      retryMs = RETRY_MS;
      store.dispatch(action);
      open();
    } catch (error) {
      if (!stopped) failed(error);
    }
  };

  const close = (): void => {
    source?.close();
    source = null;
  };

  const open = (): void => {
    close();
    heardAt = browser.now();
    const types = session === "" ? "&types=session,job,node,notice" : "";
    const query = `session=${encodeURIComponent(session)}&after=${store.get().sequence}${types}`;
    const opened = browser.openStream(`/api/events?${query}`);
    source = opened;
    const on = (kind: string, handle: (data: StreamData, id: number) => void): void => {
      opened.addEventListener(kind, (message) => {
        if (source !== opened) return;
        heardAt = browser.now();
        handle(JSON.parse((message as MessageEvent<string>).data) as StreamData, Number((message as MessageEvent).lastEventId));
      });
    };
    on("batch", (data, id) =>
      store.dispatch({ type: "batch", sequence: id, offset: offset(data.time), events: data.events ?? [] }),
    );
    on("heartbeat", (data) => store.dispatch({ type: "alive", offset: offset(data.time) }));
    on("recovered", (data) => store.dispatch({ type: "alive", offset: offset(data.time) }));
    on("outage", (data) => store.dispatch({ type: "outage", problem: data.sentence ?? "" }));
    on("reset", () => void load());
    on("gone", (data) => {
      close();
      store.dispatch({ type: "missing", problem: data.sentence ?? "" });
    });
    opened.onerror = () => {
      if (source !== opened) return;
      store.dispatch({ type: "lost", problem: "The connection to Frazil's web service is lost; trying again." });
      // The browser tries again by itself with the last id, except after an answer that is no event stream.
      if (opened.readyState === 2) later(open, RETRY_MS);
    };
  };

  const watch = (): void => {
    if (source !== null && browser.now() - heardAt > SILENCE_MS) {
      store.dispatch({ type: "lost", problem: "The connection to Frazil's web service is silent; trying again." });
      open();
    }
    later(watch, POLL_MS);
  };

  // Counters and the last scan of a folder are not events of their own: they are asked for.
  const poll = async (): Promise<void> => {
    if (source !== null && store.get().connection === "live") {
      try {
        if (session === "") {
          const { sessions, time } = await getSessions();
          if (!stopped) store.dispatch({ type: "sessions", sessions, offset: offset(time) });
        } else {
          const reply = await getSession(session);
          if (!stopped) store.dispatch({ type: "session", session: reply.session });
        }
      } catch (error) {
        if (!(error instanceof ApiError)) throw error; // the event stream tells of every outage by itself
      }
    }
    if (!stopped) later(() => void poll(), POLL_MS);
  };

  let hiding: number | null = null;
  const visibilityChanged = (): void => {
    if (hiding !== null) browser.clearTimer(hiding);
    hiding = document.hidden ? later(close, HIDDEN_MS) : null;
    if (!document.hidden && source === null && store.get().loaded) open();
  };

  document.addEventListener("visibilitychange", visibilityChanged);
  void load();
  later(() => void poll(), POLL_MS);
  later(watch, POLL_MS);
  return () => {
    stopped = true;
    close();
    for (const timer of timers) browser.clearTimer(timer);
    document.removeEventListener("visibilitychange", visibilityChanged);
  };
}

interface StreamData {
  readonly time: number;
  readonly events?: readonly PageEvent[];
  readonly sentence?: string;
}

type Offset = (serverTime: number) => number;

async function allSnapshot(offset: Offset): Promise<Parameters<Store["dispatch"]>[0]> {
  const { sequence, time, sessions, nodes, lanes, jobs } = await getSnapshot();
  return { type: "snapshot", sequence, offset: offset(time), sessions, nodes, lanes, jobs, exposures: null, classes: null };
}

async function oneSnapshot(session: string, offset: Offset): Promise<Parameters<Store["dispatch"]>[0]> {
  const { sequence, time, session: found, nodes, lanes, jobs, exposures, classes } = await getSessionSnapshot(session);
  return { type: "snapshot", sequence, offset: offset(time), sessions: [found], nodes, lanes, jobs, exposures, classes };
}
