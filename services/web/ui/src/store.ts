// What the page knows: a reducer over snapshots and events. Every event's body is a whole record, so applying one twice changes nothing.
import { type AttributeName, type ExposureTable, readExposures } from "./api";
import type { ClassAverages, ExposureSummary, Job, Lane, Node, Notice, Session, Volume } from "./records";

/** How the page is connected: to its service, and through it to the scheduler. */
export type Connection = "connecting" | "live" | "outage" | "lost";

export interface State {
  readonly connection: Connection;
  /** Why the connection is not live, in the server's words. */
  readonly problem: string;
  /** The first snapshot is in. */
  readonly loaded: boolean;
  /** The session asked for does not exist. */
  readonly missing: boolean;
  /** Resume token: every event up to here is applied. */
  readonly sequence: number;
  /** Server's clock minus this computer's, seconds. */
  readonly clockOffset: number;
  readonly sessions: readonly Session[];
  readonly nodes: readonly Node[];
  readonly lanes: readonly Lane[];
  readonly jobs: readonly Job[];
  /** What the places of an exposure's `attributes` hold. */
  readonly attributes: readonly AttributeName[];
  /** Of the session shown, in order of number. */
  readonly exposures: readonly ExposureSummary[];
  readonly classes: ClassAverages | null;
  /** The newest, refined or ab initio. */
  readonly volume: Volume | null;
  /** Newest last. */
  readonly notices: readonly TimedNotice[];
}

export interface TimedNotice extends Notice {
  readonly sequence: number;
  readonly time: number;
}

/** One event as the stream brings it. */
export type PageEvent = {
  readonly sequence: number;
  readonly time: number;
  readonly session_id: string;
  readonly kind: string;
} & (
  | { readonly type: "session"; readonly record: Session }
  | { readonly type: "exposure"; readonly record: ExposureSummary }
  | { readonly type: "classes"; readonly record: ClassAverages }
  | { readonly type: "volume"; readonly record: Volume }
  | { readonly type: "job"; readonly record: Job }
  | { readonly type: "node"; readonly record: Node }
  | { readonly type: "notice"; readonly record: Notice }
);

export type Action =
  | {
      readonly type: "snapshot";
      readonly sequence: number;
      readonly offset: number;
      readonly sessions: readonly Session[];
      readonly nodes: readonly Node[];
      readonly lanes: readonly Lane[];
      readonly jobs: readonly Job[];
      readonly attributes?: readonly AttributeName[];
      readonly exposures: ExposureTable | null;
      readonly classes: ClassAverages | null;
      readonly volume: Volume | null;
    }
  | { readonly type: "batch"; readonly sequence: number; readonly offset: number; readonly events: readonly PageEvent[] }
  | { readonly type: "alive"; readonly offset: number }
  | { readonly type: "sessions"; readonly offset: number; readonly sessions: readonly Session[] }
  | { readonly type: "session"; readonly session: Session }
  | { readonly type: "outage"; readonly problem: string }
  | { readonly type: "lost"; readonly problem: string }
  | { readonly type: "missing"; readonly problem: string };

const MOST_NOTICES = 50;

export const initialState: State = {
  connection: "connecting",
  problem: "",
  loaded: false,
  missing: false,
  sequence: 0,
  clockOffset: 0,
  sessions: [],
  nodes: [],
  lanes: [],
  jobs: [],
  attributes: [],
  exposures: [],
  classes: null,
  volume: null,
  notices: [],
};

/** Return the state after an action. */
export function reduce(state: State, action: Action): State {
  switch (action.type) {
    case "snapshot":
      return {
        ...state,
        ...live(action.offset),
        loaded: true,
        missing: false,
        sequence: action.sequence,
        sessions: action.sessions,
        nodes: action.nodes,
        lanes: action.lanes,
        jobs: action.jobs,
        attributes: action.attributes ?? [],
        exposures: action.exposures === null ? [] : readExposures(action.exposures),
        classes: action.classes,
        volume: action.volume,
        notices: [],
      };
    case "batch":
      return applyEvents({ ...state, ...live(action.offset) }, action.events, action.sequence);
    case "alive":
      return { ...state, ...live(action.offset) };
    case "sessions":
      return { ...state, clockOffset: action.offset, sessions: action.sessions };
    case "session":
      return { ...state, sessions: upsert(state.sessions, [action.session], (session) => session.session_id, true) };
    case "outage":
      return { ...state, connection: "outage", problem: action.problem };
    case "lost":
      return { ...state, connection: "lost", problem: action.problem };
    case "missing":
      return { ...state, missing: true, problem: action.problem };
  }
}

function live(offset: number): Pick<State, "connection" | "problem" | "clockOffset"> {
  return { connection: "live", problem: "", clockOffset: offset };
}

function applyEvents(state: State, events: readonly PageEvent[], sequence: number): State {
  const fresh = events.filter((event) => event.sequence > state.sequence);
  const sessions: Session[] = [];
  const nodes: Node[] = [];
  const jobs: Job[] = [];
  const exposures: ExposureSummary[] = [];
  const notices: TimedNotice[] = [];
  const deleted = new Set<string>();
  let classes = state.classes;
  let volume = state.volume;
  for (const event of fresh) {
    if (event.kind === "session_deleted") deleted.add(event.session_id);
    else if (event.type === "session") sessions.push(event.record);
    else if (event.type === "node") nodes.push(event.record);
    else if (event.type === "job") jobs.push(event.record);
    else if (event.type === "exposure") exposures.push(event.record);
    else if (event.type === "notice") notices.push({ ...event.record, sequence: event.sequence, time: event.time });
    else if (event.type === "volume") volume = event.record;
    else if (classes === null || event.record.revision >= classes.revision || event.record.job_id !== classes.job_id) {
      classes = event.record;
    }
  }
  return {
    ...state,
    sequence: Math.max(state.sequence, sequence),
    classes,
    volume,
    sessions: upsert(state.sessions, sessions, (session) => session.session_id, true).filter(
      (session) => !deleted.has(session.session_id),
    ),
    nodes: upsert(state.nodes, nodes, (node) => node.node_id).filter((node) => node.state !== "ended"),
    jobs: upsert(state.jobs, jobs, (job) => job.job_id),
    exposures: mergeExposures(state.exposures, exposures),
    notices: notices.length === 0 ? state.notices : [...state.notices, ...notices].slice(-MOST_NOTICES),
  };
}

/** Replace records by key, add new ones at the end (or at the front); the same list comes back when nothing changed. */
function upsert<T>(list: readonly T[], changed: readonly T[], key: (record: T) => string, front = false): readonly T[] {
  if (changed.length === 0) return list;
  const found = [...list];
  for (const record of changed) {
    const place = found.findIndex((other) => key(other) === key(record));
    if (place >= 0) found[place] = record;
    else if (front) found.unshift(record);
    else found.push(record);
  }
  return found;
}

/** Put exposures at their place by number; thousands of them are copied at most once per batch. */
export function mergeExposures(
  list: readonly ExposureSummary[],
  changed: readonly ExposureSummary[],
): readonly ExposureSummary[] {
  if (changed.length === 0) return list;
  const found = [...list];
  for (const exposure of changed) {
    const place = placeOf(found, exposure.number);
    if (found[place]?.number === exposure.number) found[place] = exposure;
    else found.splice(place, 0, exposure);
  }
  return found;
}

/** Return the first place whose exposure's number is not smaller. */
function placeOf(list: readonly ExposureSummary[], number: number): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((list[middle]?.number ?? 0) < number) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A holder of the state that tells its listeners. */
export interface Store {
  readonly get: () => State;
  readonly dispatch: (action: Action) => void;
  readonly subscribe: (changed: () => void) => () => void;
}

/** Return a new store. */
export function createStore(): Store {
  let state = initialState;
  const listeners = new Set<() => void>();
  return {
    get: () => state,
    dispatch: (action) => {
      state = reduce(state, action);
      for (const changed of listeners) changed();
    },
    subscribe: (changed) => {
      listeners.add(changed);
      return () => listeners.delete(changed);
    },
  };
}
