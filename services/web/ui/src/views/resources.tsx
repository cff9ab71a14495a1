// Who holds which GPU or CPU slot since when, which jobs wait, and why.
import { type ReactNode, useEffect, useMemo, useState } from "react";
import { ApiError, changeJob, changeSlot, getWait, type JobVerb, type SlotVerb } from "../api";
import { count, jobType, memory, roughDuration } from "../format";
import { useNow } from "../hooks";
import type { ExplainWaitResponse, GpuSlot, Job, Lane, Node } from "../records";
import { sessionPath } from "../router";
import type { State } from "../store";
import { Alert, Dialog, Empty, Link, Pill } from "./parts";

const OVER = new Set(["done", "failed", "cancelled"]);
const MOST_FINISHED = 20;
const ASK_AGAIN_MS = 5000;

export function ResourcesView({ state }: { readonly state: State }): ReactNode {
  const now = useNow();
  const names = useMemo(
    () => new Map(state.sessions.map((session) => [session.session_id, session.name])),
    [state.sessions],
  );
  const jobs = useMemo(() => new Map(state.jobs.map((job) => [job.job_id, job])), [state.jobs]);
  const active = state.jobs.filter((job) => !OVER.has(job.state)).sort((a, b) => a.sequence - b.sequence);
  const finished = state.jobs
    .filter((job) => OVER.has(job.state))
    .sort((a, b) => b.sequence - a.sequence)
    .slice(0, MOST_FINISHED);
  const slots = state.nodes.flatMap((node) => node.slots);
  const held = slots.filter((slot) => slot.lease !== null).length;
  return (
    <section className="resources">
      <div className="resources-head">
        <h1>Resources</h1>
        <span className="dim">
          {count(held)} of {count(slots.length)} slots held · {count(active.length)} active jobs, of these{" "}
          {count(active.filter((job) => job.state === "waiting").length)} waiting
        </span>
      </div>
      <div className="resources-grid">
        <div className="nodes">
          {state.nodes.length === 0 && (
            <Empty title="No node has dialled in">
              Start an agent on a machine with GPUs: <code>frazil-agent --scheduler HOST:PORT</code>. It appears here
              within a second.
            </Empty>
          )}
          {state.nodes.map((node) => (
            <NodePanel key={node.node_id} node={node} jobs={jobs} names={names} now={now} />
          ))}
          {state.lanes.length > 0 && <Lanes lanes={state.lanes} />}
        </div>
        <div className="jobs">
          <div className="panel">
            <div className="panel-head">
              <h2>Jobs</h2>
              <span className="dim">in queue order</span>
            </div>
            {active.length === 0 ? (
              <Empty title="No job is waiting or running">Start a session; its jobs enter the queue here.</Empty>
            ) : (
              <div className="job-list">
                {active.map((job) => (
                  <JobRow key={job.job_id} job={job} jobs={jobs} names={names} now={now} />
                ))}
              </div>
            )}
          </div>
          {finished.length > 0 && (
            <div className="panel">
              <div className="panel-head">
                <h2>Finished</h2>
              </div>
              <div className="job-list">
                {finished.map((job) => (
                  <JobRow key={job.job_id} job={job} jobs={jobs} names={names} now={now} />
                ))}
              </div>
            </div>
          )}
        </div>
      </div>
    </section>
  );
}

interface Context {
  readonly jobs: ReadonlyMap<string, Job>;
  readonly names: ReadonlyMap<string, string>;
  readonly now: number;
}

function NodePanel({ node, ...context }: Context & { readonly node: Node }): ReactNode {
  return (
    <div className={`panel node node-${node.state}`}>
      <div className="panel-head">
        <h2>{node.node_id}</h2>
        <Pill state={node.state} />
        <span className="spacer" />
        <span className="dim">
          {node.state === "up"
            ? node.programs.map((program) => program.replace("frazil-", "")).join(", ")
            : `silent for ${roughDuration(node.last_seen_time === null ? null : context.now - node.last_seen_time)}`}
        </span>
      </div>
      {node.slots.length === 0 ? (
        <p className="node-none">{node.state === "up" ? "This node offers no slot." : "Its slots are not known at present."}</p>
      ) : (
        node.slots.map((slot) => <SlotRow key={slot.slot_key} slot={slot} {...context} />)
      )}
    </div>
  );
}

function SlotRow({ slot, jobs, names, now }: Context & { readonly slot: GpuSlot }): ReactNode {
  const { lease } = slot;
  const job = lease === null ? undefined : jobs.get(lease.job_id);
  const since = lease?.grant_time ?? null;
  return (
    <div className={`slot ${lease === null ? "slot-free" : "slot-held"} ${slot.quarantined === "" ? "" : "slot-out"}`}>
      <span className={`slot-kind slot-kind-${slot.kind}`}>{slot.kind === "cpu" ? "CPU" : "GPU"}</span>
      <div className="slot-device">
        <div className="ellipsis">{slot.device_name || slot.slot_key}</div>
        <div className="dim ellipsis mono" title={slot.slot_key}>
          {slot.slot_key} · {memory(slot.memory_mib)}
        </div>
        <MemoryBar slot={slot} />
      </div>
      <div className="slot-holder">
        {slot.quarantined !== "" && <div className="bad-text">Out of service: {slot.quarantined}</div>}
        {lease !== null && (
          <>
            <div className="ellipsis">
              {jobType(job?.job_type ?? "job")} of <SessionName id={job?.session_id ?? ""} names={names} />
            </div>
            <div className="dim">
              {lease.state === "held" ? "" : `${lease.state}, `}
              {since === null ? "" : `for ${roughDuration(now - since)}`}
            </div>
          </>
        )}
        {slot.drained !== "" && <div className="warn-text">Drained: {slot.drained}</div>}
        {lease === null && slot.quarantined === "" && slot.drained === "" && <div className="dim">free</div>}
      </div>
      <SlotActions slot={slot} />
    </div>
  );
}

function MemoryBar({ slot }: { readonly slot: GpuSlot }): ReactNode {
  if (!(slot.gpu_memory_total_mib > 0)) return null;
  const used = `${memory(slot.gpu_memory_used_mib)} of ${memory(slot.gpu_memory_total_mib)} in use, ${slot.gpu_utilization_percent} % busy`;
  return (
    <div className="memory-bar" role="img" aria-label={used} title={used}>
      <div style={{ width: `${(100 * slot.gpu_memory_used_mib) / slot.gpu_memory_total_mib}%` }} />
    </div>
  );
}

const SLOT_WORDS: Readonly<Record<SlotVerb, readonly [string, string]>> = {
  drain: ["Drain", "It gets no new job; those on it go on to their end."],
  quarantine: ["Take out of service", "Its jobs are stopped at a checkpoint and go on elsewhere."],
  clear: ["Put back into service", "Its agent proves it free first."],
};

/** What an operator may do with a slot, each asked for its reason. */
function SlotActions({ slot }: { readonly slot: GpuSlot }): ReactNode {
  const [verb, setVerb] = useState<SlotVerb | null>(null);
  const [reason, setReason] = useState("");
  const [problem, setProblem] = useState("");
  const out = slot.quarantined !== "" || slot.drained !== "";
  const offered: readonly SlotVerb[] = out ? ["clear"] : ["drain", "quarantine"];
  const send = async (): Promise<void> => {
    if (verb === null) return;
    try {
      await changeSlot(slot.slot_key, verb, reason);
      setVerb(null);
      setProblem("");
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
  };
  return (
    <div className="row-actions">
      {offered.map((one) => (
        <button key={one} type="button" className="quiet" title={SLOT_WORDS[one][1]} onClick={() => setVerb(one)}>
          {SLOT_WORDS[one][0]}…
        </button>
      ))}
      {verb !== null && (
        <Dialog label={SLOT_WORDS[verb][0]} className="small-dialog" onClose={() => setVerb(null)}>
          <h2>
            {SLOT_WORDS[verb][0]}: {slot.device_name || slot.slot_key}
          </h2>
          <p>{SLOT_WORDS[verb][1]}</p>
          {problem !== "" && <Alert tone="bad">{problem}</Alert>}
          <label htmlFor="slot-reason">Why, for those who come after</label>
          <input id="slot-reason" type="text" value={reason} onChange={(event) => setReason(event.target.value)} />
          <div className="form-actions">
            <button type="button" onClick={() => setVerb(null)}>
              Leave it
            </button>
            <button type="button" className="primary" onClick={() => void send()}>
              {SLOT_WORDS[verb][0]}
            </button>
          </div>
        </Dialog>
      )}
    </div>
  );
}

/** What an operator may do with a job. */
function JobActions({ job }: { readonly job: Job }): ReactNode {
  const [problem, setProblem] = useState("");
  const [sure, setSure] = useState<JobVerb | null>(null);
  const running = job.state === "running" || job.state === "starting" || job.state === "stopping";
  const over = job.state === "failed" || job.state === "cancelled";
  const offered: readonly JobVerb[] = over ? ["requeue"] : running ? ["requeue", "cancel", "kill"] : job.state === "waiting" ? ["cancel"] : [];
  const words: Readonly<Record<JobVerb, string>> = { requeue: "Requeue", cancel: "Cancel", kill: "Kill" };
  const send = async (verb: JobVerb): Promise<void> => {
    if (sure !== verb && verb !== "requeue") return setSure(verb);
    setSure(null);
    try {
      await changeJob(job.job_id, verb);
      setProblem("");
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
  };
  return (
    <span className="row-actions">
      {problem !== "" && <span className="bad-text">{problem}</span>}
      {offered.map((verb) => (
        <button key={verb} type="button" className={sure === verb ? "sure" : "quiet"} onClick={() => void send(verb)}>
          {sure === verb ? `${words[verb]}: sure?` : words[verb]}
        </button>
      ))}
    </span>
  );
}

function SessionName({ id, names }: { readonly id: string; readonly names: ReadonlyMap<string, string> }): ReactNode {
  return id === "" ? "an unknown session" : <Link to={sessionPath(id)}>{names.get(id) ?? id}</Link>;
}

function JobRow({ job, jobs, names, now }: Context & { readonly job: Job }): ReactNode {
  const since = job.lease?.grant_time ?? null;
  const holding = job.lease !== null && job.lease.state !== "closed";
  return (
    <div className="job">
      <div className="job-main">
        <span className="job-name">{jobType(job.job_type)}</span>
        <SessionName id={job.session_id} names={names} />
        <span className="spacer" />
        {job.failures > 0 && <span className="warn-text">restarted {count(job.failures)}×</span>}
        <span className="dim">lane {job.lane || "default"}</span>
        {job.priority > 0 && <span className="dim">priority {count(job.priority)}</span>}
        {job.stalled && <span className="warn-text" title="It runs and has input, but makes no progress">stalled</span>}
        <Pill state={job.parked ? "parked" : job.state} />
        <JobActions job={job} />
      </div>
      {job.parked && <div className="job-line dim">{job.reason || "Its slot is used by another job of its session for a while; its checkpoint waits."}</div>}
      {holding && (
        <div className="job-line dim">
          <span className="mono">{job.lease?.slot_key}</span>
          {since !== null && <span>for {roughDuration(now - since)}</span>}
        </div>
      )}
      {job.progress !== "" && !OVER.has(job.state) && <div className="job-line">{job.progress}</div>}
      {job.state === "failed" && <div className="job-line bad-text">{job.reason}</div>}
      {job.state === "waiting" && <WaitExplained job={job} jobs={jobs} names={names} now={now} />}
    </div>
  );
}

function WaitExplained({ job, names, now }: Context & { readonly job: Job }): ReactNode {
  const wait = useWait(job.job_id);
  if (wait === null) return <div className="job-line dim">{job.reason || "\u00a0"}</div>;
  return (
    <div className="wait">
      <p>{wait.sentence}</p>
      {wait.remedy !== "" && <p className="remedy">{wait.remedy}</p>}
      {wait.position > 0 && <p className="dim">{count(wait.position)} jobs are before it.</p>}
      {wait.blockers.map((blocker) => (
        <div key={`${blocker.slot_key} ${blocker.job_id}`} className="blocker">
          <span className="mono">{blocker.slot_key}</span>
          <span className="ellipsis">
            {jobType(blocker.job_type)} of <SessionName id={blocker.session_id} names={names} />
          </span>
          <span className="dim">
            {blocker.since === null ? "" : `${roughDuration(now - blocker.since)}`}
            {blocker.indefinite ? ", until paused" : ""}
          </span>
        </div>
      ))}
    </div>
  );
}

/** Return why a job waits, asked again every few seconds. */
function useWait(jobId: string): ExplainWaitResponse | null {
  const [wait, setWait] = useState<ExplainWaitResponse | null>(null);
  useEffect(() => {
    let gone = false;
    let timer = 0;
    const ask = async (): Promise<void> => {
      try {
        const reply = await getWait(jobId);
        if (!gone) setWait(reply.wait);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error; // an outage is told in the bar; the last answer stays
      }
      if (!gone) timer = window.setTimeout(() => void ask(), ASK_AGAIN_MS);
    };
    void ask();
    return () => {
      gone = true;
      window.clearTimeout(timer);
    };
  }, [jobId]);
  return wait;
}

function Lanes({ lanes }: { readonly lanes: readonly Lane[] }): ReactNode {
  return (
    <div className="panel">
      <div className="panel-head">
        <h2>Lanes</h2>
      </div>
      {lanes.map((lane) => (
        <div key={lane.name} className="lane">
          <span>{lane.name}</span>
          <span className="dim">{lane.backend}</span>
          <LaneWhere lane={lane} />
          {lane.problem !== "" && <span className="lane-problem bad-text">{lane.problem}</span>}
          {lane.cluster_jobs.filter((job) => job.state !== "ENDED").map((job) => (
            <span key={job.name} className="lane-problem dim">
              <span className="mono">{job.cluster_job_id || job.name}</span> {job.state.toLowerCase()} {job.cluster_reason}
            </span>
          ))}
        </div>
      ))}
    </div>
  );
}

function LaneWhere({ lane }: { readonly lane: Lane }): ReactNode {
  const active = lane.cluster_jobs.filter((job) => job.state !== "ENDED").length;
  const nodes = lane.node_globs.length === 0 ? "every node" : lane.node_globs.join(", ");
  return <span className="mono dim ellipsis">{lane.backend === "node" ? nodes : `${count(active)} cluster jobs`}</span>;
}
