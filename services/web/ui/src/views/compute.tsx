// Where a session's jobs run: workers up and down, streaming jobs, hand-over of slots, taking turns.
import { type ReactNode, useState } from "react";
import { changeStreaming, newRequestId, switchPlan, updateCompute, type Values } from "../api";
import { count, jobType } from "../format";
import type { ComputeResources, Job, Session } from "../records";
import { AdvicePanel, useAdvice } from "./advice";
import { Alert, Dialog, Pill } from "./parts";

const PREPROCESS = "preprocess";
const GONE = new Set(["done", "cancelled", "failed"]);

/** Return the values of compute resources as the service reads them. */
export function computeValues(compute: ComputeResources): Values {
  return { ...compute, alternation: compute.alternation === null ? {} : { ...compute.alternation } };
}

/** Return the jobs of a session that a hand-over counts, by type. */
export function countJobs(jobs: readonly Job[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const job of jobs) {
    if (!GONE.has(job.state) && !job.parked) counts[job.job_type] = (counts[job.job_type] ?? 0) + 1;
  }
  return counts;
}

/** Return the hand-over that gives one preprocessing worker's slot to a parked or waiting streaming job. */
export function handOver(jobs: readonly Job[], jobType: string): Readonly<Record<string, number>> {
  const counts = { ...countJobs(jobs) };
  const workers = counts[PREPROCESS] ?? 0;
  return { ...counts, [PREPROCESS]: Math.max(0, workers - 1), [jobType]: 1 };
}

export function ComputeDialog(props: {
  readonly session: Session;
  readonly jobs: readonly Job[];
  readonly onClose: () => void;
}): ReactNode {
  const { session, jobs, onClose } = props;
  const current = session.compute_next ?? session.compute;
  const [workers, setWorkers] = useState(current?.preprocessing_workers || 1);
  const [priority, setPriority] = useState(current?.priority ?? 0);
  const [alternate, setAlternate] = useState(current?.alternation?.enabled ?? false);
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const compute: Values =
    current === null
      ? {}
      : {
          ...computeValues(current),
          preprocessing_workers: workers,
          priority,
          alternation: { ...(current.alternation ?? {}), enabled: alternate },
        };
  const advice = useAdvice({ session: session.session_id, compute });
  const ask = async (wish: () => Promise<unknown>): Promise<void> => {
    setBusy(true);
    setProblem("");
    try {
      await wish();
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
    setBusy(false);
  };
  const send = (now: boolean): Promise<void> => ask(() => updateCompute(session.session_id, compute, now, newRequestId()));
  const streaming = jobs.filter((job) => job.indefinite && job.job_type !== PREPROCESS);
  const active = session.state === "running" || session.state === "completing";
  return (
    <Dialog label="Compute resources" className="form-dialog compute-dialog" onClose={onClose}>
      <h2>Compute resources of {session.name}</h2>
      {problem !== "" && <Alert tone="bad">{problem}</Alert>}
      <div className="compute-row">
        <label htmlFor="compute-workers">Preprocessing workers</label>
        <div className="input">
          <input id="compute-workers" type="number" min={1} max={256} value={workers} onChange={(event) => setWorkers(Number(event.target.value))} />
        </div>
        <label htmlFor="compute-priority">Priority</label>
        <div className="input">
          <input id="compute-priority" type="number" min={0} max={100} value={priority} onChange={(event) => setPriority(Number(event.target.value))} />
        </div>
        <label className="compute-check">
          <input type="checkbox" checked={alternate} onChange={(event) => setAlternate(event.target.checked)} />
          On few GPUs, preprocessing and streaming jobs take turns
        </label>
      </div>
      <AdvicePanel advice={advice} />
      {streaming.length > 0 && (
        <div className="compute-streaming">
          {streaming.map((job) => (
            <StreamingRow key={job.job_id} session={session} job={job} jobs={jobs} busy={busy} ask={ask} />
          ))}
        </div>
      )}
      {session.slot_switch !== null && session.slot_switch.sentence !== "" && <p className="dim">{session.slot_switch.sentence}</p>}
      <div className="form-actions">
        <button type="button" onClick={onClose}>
          Close
        </button>
        <button type="button" disabled={busy} title="From the next start on" onClick={() => void send(false)}>
          Save for the next start
        </button>
        {active && (
          <button type="button" className="primary" disabled={busy} title="Workers come and go without a pause" onClick={() => void send(true)}>
            Apply now
          </button>
        )}
      </div>
    </Dialog>
  );
}

function StreamingRow(props: {
  readonly session: Session;
  readonly job: Job;
  readonly jobs: readonly Job[];
  readonly busy: boolean;
  readonly ask: (wish: () => Promise<unknown>) => Promise<void>;
}): ReactNode {
  const { session, job, jobs, busy, ask } = props;
  const running = session.state === "running" || session.state === "completing";
  const stopped = GONE.has(job.state) || job.state === "paused";
  const wants = job.state === "waiting" || job.parked;
  return (
    <div className="compute-job">
      <span className="job-name">{jobType(job.job_type)}</span>
      <Pill state={job.parked ? "parked" : job.state} />
      <span className="dim ellipsis">{job.reason || job.progress}</span>
      <span className="spacer" />
      {wants && running && (countJobs(jobs)[PREPROCESS] ?? 0) > 0 && (
        <button
          type="button"
          disabled={busy}
          title="A preprocessing worker finishes its movie; this job gets its slot, nobody else comes in between"
          onClick={() => void ask(() => switchPlan(session.session_id, handOver(jobs, job.job_type)))}
        >
          Hand a worker's slot over
        </button>
      )}
      {stopped && !job.parked && running && (
        <button type="button" disabled={busy} onClick={() => void ask(() => changeStreaming(session.session_id, job.job_type, "start"))}>
          Start
        </button>
      )}
      {!stopped && running && (
        <button type="button" disabled={busy} onClick={() => void ask(() => changeStreaming(session.session_id, job.job_type, "stop"))}>
          Stop at a checkpoint
        </button>
      )}
      {stopped && <span className="dim">{count(job.failures)} restarts</span>}
    </div>
  );
}
