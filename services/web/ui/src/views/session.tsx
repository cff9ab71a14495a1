// One session, live: what is going on, the newest micrographs, the trends, the classes.
import { type ReactNode, useCallback, useDeferredValue, useMemo, useState } from "react";
import { changeSession, cloneSession, deleteSession, newRequestId, type SessionVerb } from "../api";
import { count, duration, known, measure, shortCount } from "../format";
import { useNow } from "../hooks";
import type { ExposureSummary, Session } from "../records";
import { navigate, sessionPath } from "../router";
import { countExposures, type Counts, hourlyRate, median, newest, stripOrder } from "../selectors";
import type { State } from "../store";
import { ClassesPanel } from "./classes";
import { ComputeDialog } from "./compute";
import { CurationDialog } from "./curation";
import { ExposureDialog } from "./exposure";
import { Alert, Dialog, Empty, Pill, ProgressBar, Stat } from "./parts";
import { ParametersDialog } from "./parameters";
import { PlotsPanel } from "./plots";
import { Strip } from "./strip";
import { VolumePanel } from "./volume";

export function SessionView({ state, openExposure }: { readonly state: State; readonly openExposure: string }): ReactNode {
  const [failedOnly, setFailedOnly] = useState(false);
  const [curating, setCurating] = useState(false);
  const session = state.sessions[0];
  const counts = useMemo(() => countExposures(state.exposures), [state.exposures]);
  const slow = useDeferredValue(state.exposures);
  const ordered = useMemo(() => stripOrder(state.exposures, failedOnly), [state.exposures, failedOnly]);
  const sessionId = session?.session_id ?? "";
  const open = useCallback(
    (exposure: ExposureSummary) => navigate(sessionPath(sessionId, exposure.exposure_id), openExposure !== ""),
    [sessionId, openExposure],
  );
  if (session === undefined) return <Empty title="Loading…" />;
  const opened = openExposure === "" ? undefined : state.exposures.find((one) => one.exposure_id === openExposure);
  return (
    <section className="session">
      <SessionHead session={session} state={state} counts={counts} onCurate={() => setCurating(true)} />
      <Attention session={session} state={state} counts={counts} />
      <Figures session={session} state={state} counts={counts} exposures={state.exposures} />
      <Strip
        exposures={ordered}
        session={session}
        counts={counts}
        failedOnly={failedOnly}
        onFailedOnly={setFailedOnly}
        onOpen={open}
      />
      <div className="session-lower">
        <PlotsPanel exposures={slow} onOpen={open} />
        <ClassesPanel classes={state.classes} session={session} particles={counts.particles} />
        {state.volume !== null && <VolumePanel volume={state.volume} />}
      </div>
      {curating && <CurationDialog session={session} state={state} onOpen={open} onClose={() => setCurating(false)} />}
      {opened !== undefined && (
        <ExposureDialog
          exposure={opened}
          session={session}
          state={state}
          order={ordered}
          onOpen={open}
          onClose={() => navigate(sessionPath(sessionId))}
        />
      )}
    </section>
  );
}

function SessionHead(props: {
  readonly session: Session;
  readonly state: State;
  readonly counts: Counts;
  readonly onCurate: () => void;
}): ReactNode {
  const { session, state, counts } = props;
  const [computing, setComputing] = useState(false);
  const [tuning, setTuning] = useState(false);
  const [changing, setChanging] = useState(false);
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const [completing, setCompleting] = useState(false);
  const change = async (verb: SessionVerb): Promise<void> => {
    setBusy(true);
    setProblem("");
    try {
      await changeSession(session.session_id, verb, newRequestId());
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
    setBusy(false);
  };
  const open = session.state === "running" || session.state === "paused";
  const still = session.state === "paused" || session.state === "completed";
  return (
    <div className="session-head">
      <h1>{session.name}</h1>
      <Pill state={session.state} />
      <span className="path" title={session.parameters?.movie_folder}>
        {session.parameters?.movie_folder}
      </span>
      <Settings session={session} />
      <div className="session-actions">
        <button type="button" title="Optics, picking, box: what is stale is redone" onClick={() => setTuning(true)}>
          Parameters…
        </button>
        <button type="button" title="Which micrographs are used" onClick={props.onCurate}>
          Curation…
        </button>
        <button type="button" title="Workers, lanes, streaming jobs" onClick={() => setComputing(true)}>
          Compute…
        </button>
        {counts.quarantined > 0 && open && (
          <button type="button" disabled={busy} onClick={() => void change("retry-quarantined")}>
            Retry {count(counts.quarantined)} failed
          </button>
        )}
        {still && (
          <button type="button" disabled={busy} title="Clone or delete this session" onClick={() => setChanging(true)}>
            More…
          </button>
        )}
        {still && (
          <button
            type="button"
            className={session.state === "paused" ? "primary" : ""}
            disabled={busy}
            title={session.state === "paused" ? "" : "More movies have come: go on where it ended"}
            onClick={() => void change("start")}
          >
            {session.state === "paused" ? "Start" : "Start again"}
          </button>
        )}
        {(session.state === "running" || session.state === "completing") && (
          <button type="button" disabled={busy} onClick={() => void change("pause")}>
            Pause
          </button>
        )}
        {open && (
          <button type="button" disabled={busy} onClick={() => setCompleting(true)}>
            Complete…
          </button>
        )}
      </div>
      {problem !== "" && <Alert tone="bad">{problem}</Alert>}
      {changing && <MoreDialog session={session} onClose={() => setChanging(false)} />}
      {tuning && <ParametersDialog session={session} exposures={state.exposures} onClose={() => setTuning(false)} />}
      {computing && (
        <ComputeDialog
          session={session}
          jobs={state.jobs.filter((job) => job.session_id === session.session_id)}
          onClose={() => setComputing(false)}
        />
      )}
      {completing && (
        <Dialog label="Complete session" className="small-dialog" onClose={() => setCompleting(false)}>
          <h2>Complete {session.name}?</h2>
          <p>
            Frazil stops waiting for movies, works off the {count(counts.ready + counts.running)} that are queued, makes
            the final classification passes and releases its GPUs.
          </p>
          <div className="form-actions">
            <button type="button" onClick={() => setCompleting(false)}>
              Keep it running
            </button>
            <button
              type="button"
              className="primary"
              onClick={() => {
                setCompleting(false);
                void change("complete");
              }}
            >
              Complete
            </button>
          </div>
        </Dialog>
      )}
    </div>
  );
}

/** Clone a session, or delete it. */
function MoreDialog({ session, onClose }: { readonly session: Session; readonly onClose: () => void }): ReactNode {
  const [name, setName] = useState(`${session.name}-2`);
  const [results, setResults] = useState(false);
  const [sure, setSure] = useState(false);
  const [problem, setProblem] = useState("");
  const ask = async (wish: () => Promise<string>): Promise<void> => {
    try {
      navigate(await wish());
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
  };
  const clone = async (): Promise<string> => sessionPath((await cloneSession(session.session_id, name.trim(), "")).session.session_id);
  const remove = async (): Promise<string> => {
    await deleteSession(session.session_id, results);
    return "/";
  };
  return (
    <Dialog label="Clone or delete session" className="small-dialog" onClose={onClose}>
      <h2>Clone {session.name}</h2>
      {problem !== "" && <Alert tone="bad">{problem}</Alert>}
      <p>A new session with the same parameters and compute resources, and none of the results.</p>
      <div className="input">
        <input type="text" aria-label="Name of the new session" value={name} onChange={(event) => setName(event.target.value)} />
      </div>
      <div className="form-actions">
        <button type="button" className="primary" onClick={() => void ask(clone)}>
          Clone
        </button>
      </div>
      <h2>Delete {session.name}</h2>
      <p>Frazil forgets the session. The movies always stay.</p>
      <label className="compute-check">
        <input type="checkbox" checked={results} onChange={(event) => setResults(event.target.checked)} />
        Delete its results in {session.folder}, too
      </label>
      <div className="form-actions">
        <button type="button" onClick={onClose}>
          Keep it
        </button>
        <button type="button" className={sure ? "danger" : ""} onClick={() => (sure ? void ask(remove) : setSure(true))}>
          {sure ? "Delete: sure?" : "Delete"}
        </button>
      </div>
    </Dialog>
  );
}

function Settings({ session }: { readonly session: Session }): ReactNode {
  const parameters = session.parameters;
  if (parameters === null) return null;
  const largest = parameters.particle_diameter_max_angstrom;
  const smallest = measure(parameters.particle_diameter_angstrom, 0);
  const words = [known(largest) && largest > 0 ? `⌀ ${smallest}–${largest.toFixed(0)} Å` : `⌀ ${smallest} Å`];
  if (known(parameters.pixel_size_angstrom)) words.push(`${parameters.pixel_size_angstrom} Å/px`);
  if (known(parameters.voltage_kv)) words.push(`${parameters.voltage_kv} kV`);
  return <span className="settings">{words.join(" · ")}</span>;
}

function Attention(props: { readonly session: Session; readonly state: State; readonly counts: Counts }): ReactNode {
  const { session, state, counts } = props;
  const waiting = state.jobs.find((job) => job.session_id === session.session_id && job.state === "waiting");
  const notice = state.notices.findLast((one) => one.level !== "info");
  const scan = session.scan?.problem ?? "";
  return (
    <>
      {session.state_reason !== "" && <Alert tone="bad">{session.state_reason}</Alert>}
      {scan !== "" && <Alert tone="bad">The movie folder cannot be read: {scan}</Alert>}
      {waiting !== undefined && counts.running === 0 && session.state === "running" && (
        <Alert tone="warn">
          A job of this session waits for a GPU slot.{" "}
          <a
            href="/resources"
            onClick={(event) => {
              event.preventDefault();
              navigate("/resources");
            }}
          >
            See who holds them
          </a>
        </Alert>
      )}
      {notice !== undefined && <Alert tone={notice.level === "error" ? "bad" : "warn"}>{notice.sentence}</Alert>}
    </>
  );
}

const STALL_SECONDS = 900;

function Figures(props: {
  readonly session: Session;
  readonly state: State;
  readonly counts: Counts;
  readonly exposures: readonly ExposureSummary[];
}): ReactNode {
  const { session, state, counts, exposures } = props;
  const now = useNow();
  const figures = useMemo(() => {
    const recent = exposures.slice(-200);
    return {
      lastMovie: newest(recent.map((one) => one.register_time)),
      resolution: median(recent.map((one) => one.ctf_fit_resolution_angstrom)),
      found: exposures.map((one) => one.register_time),
      finished: exposures.map((one) => one.finish_time),
      done: Math.max(1, counts.done),
    };
  }, [exposures, counts.done]);
  const silent = figures.lastMovie === null ? null : now - figures.lastMovie;
  const stalled = session.state === "running" && silent !== null && silent > STALL_SECONDS;
  const classified = Math.max(state.classes?.particle_count ?? 0, session.counts?.particles_classified ?? 0);
  const settling = session.scan?.files_settling ?? 0;
  return (
    <div className="figures panel">
      <div className="figures-movies">
        <Stat name="Found" value={count(counts.found)} hint={settling > 0 ? `${settling} more are still being written` : ""} />
        <Stat name="Ready" value={count(counts.ready)} hint="Waiting for a worker" />
        <Stat name="Running" value={count(counts.running)} tone={counts.running > 0 ? "accent-text" : ""} />
        <Stat name="Done" value={count(counts.done)} />
        <Stat name="Failed" value={count(counts.quarantined)} tone={counts.quarantined > 0 ? "bad-text" : ""} />
        <Stat
          name="Rejected"
          value={count(session.counts?.rejected ?? 0)}
          hint="Processed, but their particles are not used: see Curation"
        />
        <ProgressBar counts={counts} />
      </div>
      <div className="figures-rates">
      <Stat name="Arriving" value={measure(hourlyRate(figures.found, now), 0)} unit="/h" hint="Last 15 minutes" />
      <Stat name="Processed" value={measure(hourlyRate(figures.finished, now), 0)} unit="/h" hint="Last 15 minutes" />
      <Stat name="Since last movie" value={duration(silent)} tone={stalled ? "warn-text" : ""} />
      <Stat name="Median CTF fit" value={measure(figures.resolution, 1)} unit="Å" hint="Of the last 200 movies" />
      <Stat name="Particles" value={shortCount(counts.particles)} hint={count(counts.particles)} />
      <Stat name="Per micrograph" value={measure(counts.particles / figures.done, 0)} />
      <Stat name="Classified" value={shortCount(classified)} hint={count(classified)} />
      </div>
    </div>
  );
}
