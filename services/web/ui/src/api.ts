// The service's JSON API: one function per question; failures are ApiError with the server's own sentence.
import type {
  AttributeThreshold,
  ClassAverages,
  ClassThresholds,
  ComputeAdvice,
  ExplainWaitResponse,
  Exposure,
  ExposureResult,
  ExposureSummary,
  Job,
  Lane,
  Node,
  Profile,
  Session,
  Volume,
} from "./records";

/** A refusal or failure, as the server words it. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    sentence: string,
    readonly fields: Readonly<Record<string, string>> = {},
  ) {
    super(sentence);
  }
}

export interface Resources {
  readonly nodes: readonly Node[];
  readonly lanes: readonly Lane[];
  readonly jobs: readonly Job[];
}

export interface Snapshot extends Resources {
  readonly sequence: number;
  readonly time: number;
  readonly sessions: readonly Session[];
}

export interface SessionSnapshot extends Resources {
  readonly sequence: number;
  readonly time: number;
  readonly session: Session;
  readonly attributes: readonly AttributeName[];
  readonly exposures: ExposureTable;
  readonly classes: ClassAverages | null;
  readonly volume: Volume | null;
}

export interface ExposureTable {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly unknown[])[];
}

export interface Picks {
  readonly width_px: number;
  readonly height_px: number;
  readonly pixel_size_angstrom: number;
  readonly x: readonly (number | null)[];
  readonly y: readonly (number | null)[];
  readonly score: readonly (number | null)[];
}

/** What a picker found in one micrograph, best first, and the threshold it found itself; null when noise explains all. */
export interface Candidates {
  readonly width_px: number;
  readonly height_px: number;
  readonly pixel_size_angstrom: number;
  readonly x_px: readonly (number | null)[];
  readonly y_px: readonly (number | null)[];
  readonly score: readonly (number | null)[];
  readonly power: readonly (number | null)[];
  readonly score_min: number | null;
}

/** One number of exposures, by which they are curated. */
export interface AttributeName {
  readonly name: string;
  readonly title: string;
  readonly unit: string;
}

/** What a test of parameters left. */
export interface Tested {
  readonly result: ExposureResult;
  readonly attributes: Readonly<Record<string, number | null>>;
}

export interface ParametersReply {
  readonly session: Session;
  readonly redone: Readonly<Record<string, number>>;
  readonly sentence: string;
}

export interface MotionTrack {
  readonly x_angstrom: readonly (number | null)[];
  readonly y_angstrom: readonly (number | null)[];
}

/** Values of a message's fields, as a form gives them. */
export interface Values {
  readonly [field: string]: string | number | boolean | null | readonly string[] | Values;
}

export interface NewSession {
  readonly name: string;
  readonly parameters: Values;
  readonly compute: Values;
}

export type JobVerb = "cancel" | "kill" | "requeue";
export type SlotVerb = "drain" | "quarantine" | "clear";

export type SessionVerb = "start" | "pause" | "complete" | "retry-quarantined";

export const getSnapshot = (): Promise<Snapshot> => get("/api/snapshot");

export const getSessionSnapshot = (session: string): Promise<SessionSnapshot> =>
  get(`/api/sessions/${encodeURIComponent(session)}/snapshot`);

export const getSessions = (): Promise<{ sessions: readonly Session[]; time: number }> => get("/api/sessions");

export const getSession = (session: string): Promise<{ session: Session; time: number }> =>
  get(`/api/sessions/${encodeURIComponent(session)}`);

export const getExposure = (exposureId: string): Promise<{ exposure: Exposure & { version: string } }> =>
  get(`/api/exposures/${encodeURIComponent(exposureId)}`);

export const getPicks = (exposureId: string, version: string): Promise<Picks> =>
  get(`/api/exposures/${encodeURIComponent(exposureId)}/picks.json?v=${version}`);

export const getCandidates = (exposureId: string, version: string): Promise<Candidates> =>
  get(`/api/exposures/${encodeURIComponent(exposureId)}/candidates.json?v=${version}`);

export const testAddress = (exposureId: string, jobId: string, file: string): string =>
  `/api/exposures/${encodeURIComponent(exposureId)}/tests/${encodeURIComponent(jobId)}/${file}`;

export const getTested = (exposureId: string, jobId: string): Promise<Tested> => get(testAddress(exposureId, jobId, "result.json"));

export const getTestedPicks = (exposureId: string, jobId: string): Promise<Picks> =>
  get(testAddress(exposureId, jobId, "picks.json"));

export const getMotion = (exposureId: string, version: string): Promise<MotionTrack> =>
  get(`/api/exposures/${encodeURIComponent(exposureId)}/motion.json?v=${version}`);

export const getWait = (jobId: string): Promise<{ wait: ExplainWaitResponse }> =>
  get(`/api/jobs/${encodeURIComponent(jobId)}/wait`);

export const thumbnailAddress = (exposure: Pick<ExposureSummary, "exposure_id" | "version">): string =>
  `/api/exposures/${encodeURIComponent(exposure.exposure_id)}/thumbnail.png?v=${exposure.version}`;

export const spectrumAddress = (exposure: Pick<ExposureSummary, "exposure_id" | "version">): string =>
  `/api/exposures/${encodeURIComponent(exposure.exposure_id)}/spectrum.png?v=${exposure.version}`;

export const sheetAddress = (classes: ClassAverages): string =>
  `/api/sessions/${encodeURIComponent(classes.session_id)}/classes/${classes.revision}/sheet.png`;

export const volumeSheetAddress = (volume: Volume): string =>
  `/api/sessions/${encodeURIComponent(volume.session_id)}/volumes/${volume.revision}/sheet.png`;

export const createSession = (session: NewSession, requestId: string): Promise<{ session: Session }> =>
  post("/api/sessions", { ...session, request_id: requestId });

export const changeSession = (session: string, verb: SessionVerb, requestId: string): Promise<{ session?: Session }> =>
  post(`/api/sessions/${encodeURIComponent(session)}/${verb}`, { request_id: requestId });

/** Say what would run together and what would wait: of a session, or of values still being typed. */
export const getAdvice = (asked: {
  readonly session?: string;
  readonly parameters?: Values;
  readonly compute?: Values;
}): Promise<{ advice: ComputeAdvice }> => post("/api/advice", asked);

export const updateCompute = (session: string, compute: Values, now: boolean, requestId: string): Promise<{ session: Session }> =>
  post(`/api/sessions/${encodeURIComponent(session)}/compute`, { compute, now, request_id: requestId });

export const switchPlan = (session: string, jobs: Readonly<Record<string, number>>): Promise<{ session: Session }> =>
  post(`/api/sessions/${encodeURIComponent(session)}/switch`, { jobs, request_id: newRequestId() });

export const changeStreaming = (session: string, jobType: string, verb: "start" | "stop"): Promise<{ session: Session }> =>
  post(`/api/sessions/${encodeURIComponent(session)}/streaming/${verb}`, { job_type: jobType, request_id: newRequestId() });

export const cloneSession = (session: string, name: string, folder: string): Promise<{ session: Session }> =>
  post(`/api/sessions/${encodeURIComponent(session)}/clone`, { name, movie_folder: folder, request_id: newRequestId() });

export const deleteSession = (session: string, results: boolean): Promise<unknown> =>
  post(`/api/sessions/${encodeURIComponent(session)}/delete`, { delete_results: results, request_id: newRequestId() });

/** Change some parameters; null unsets one. With `dryRun` only what would be redone is said. */
export const updateParameters = (
  session: string,
  parameters: Values,
  options: { readonly newOnly: boolean; readonly redoFrom: string; readonly dryRun: boolean },
): Promise<ParametersReply> =>
  post(`/api/sessions/${encodeURIComponent(session)}/parameters`, {
    parameters,
    new_exposures_only: options.newOnly,
    redo_from: options.redoFrom,
    dry_run: options.dryRun,
    request_id: newRequestId(),
  });

export const updateThresholds = (
  session: string,
  thresholds: readonly AttributeThreshold[],
): Promise<{ session: Session }> =>
  post(`/api/sessions/${encodeURIComponent(session)}/thresholds`, { thresholds, request_id: newRequestId() });

export const curate = (session: string, exposureIds: readonly string[], word: "" | "accept" | "reject"): Promise<unknown> =>
  post(`/api/sessions/${encodeURIComponent(session)}/curate`, {
    exposure_ids: exposureIds,
    override: word,
    request_id: newRequestId(),
  });

/** What is to change of a selection of 2D classes: classes by number, or all thresholds. */
export interface ClassChange {
  readonly select?: readonly number[];
  readonly exclude?: readonly number[];
  readonly release_all?: boolean;
  readonly thresholds?: ClassThresholds;
}

export const selectClasses = (session: string, change: ClassChange): Promise<unknown> =>
  post(`/api/sessions/${encodeURIComponent(session)}/classes/select`, { ...change, request_id: newRequestId() });

export const testExposure = (exposureId: string, parameters: Values): Promise<{ job_id: string; folder: string }> =>
  post(`/api/exposures/${encodeURIComponent(exposureId)}/test`, { parameters, request_id: newRequestId() });

export const getProfiles = (): Promise<{ profiles: readonly Profile[] }> => get("/api/profiles");

export const saveProfile = (name: string, session: string): Promise<{ profile: Profile }> =>
  post("/api/profiles", { name, session, request_id: newRequestId() });

export const changeJob = (jobId: string, verb: JobVerb): Promise<{ job: Job }> =>
  post(`/api/jobs/${encodeURIComponent(jobId)}/${verb}`, { request_id: newRequestId() });

export const changeSlot = (slotKey: string, verb: SlotVerb, reason: string): Promise<unknown> =>
  post(`/api/slots/${verb}`, { slot_key: slotKey, reason, request_id: newRequestId() });

/** Return a fresh request id; keep it over retries of one wish. (`crypto.randomUUID` is missing on plain http.) */
export function newRequestId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Turn rows of a table into objects. */
export function readExposures(table: ExposureTable): ExposureSummary[] {
  return table.rows.map((row) => {
    const found: Record<string, unknown> = {};
    table.columns.forEach((column, place) => {
      found[column] = row[place];
    });
    return found as unknown as ExposureSummary;
  });
}

function get<T>(path: string): Promise<T> {
  return ask(path, {});
}

function post<T>(path: string, body: unknown): Promise<T> {
  const headers = { "Content-Type": "application/json", "X-Frazil": "1" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body) });
}

async function ask<T>(path: string, init: RequestInit): Promise<T> {
  let reply: Response;
  try {
    reply = await fetch(path, init);
  } catch {
    throw new ApiError(0, "SERVICE_UNREACHABLE", "Frazil's web service does not answer; trying again.");
  }
  const content: unknown = await reply.json().catch(() => null);
  if (reply.ok && content !== null) return content as T;
  const problem = (content ?? {}) as { reason?: string; sentence?: string; fields?: Record<string, string> };
  const sentence = problem.sentence ?? `The web service answered ${reply.status}.`;
  throw new ApiError(reply.status, problem.reason ?? "UNKNOWN", sentence, problem.fields ?? {});
}
