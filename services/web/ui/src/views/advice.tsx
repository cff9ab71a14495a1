// What the GPUs at hand allow: which jobs would run together, which would wait, and what to do.
import { type ReactNode, useEffect, useState } from "react";
import { ApiError, getAdvice, type Values } from "../api";
import { count, jobType, memory } from "../format";
import type { ComputeAdvice } from "../records";

const TYPING_MS = 400;

/** What advice is asked on: a session with other compute resources, or one that is still being typed. */
export interface Question {
  readonly session?: string;
  readonly parameters?: Values;
  readonly compute: Values;
}

/** Return the advice on what is being typed, a moment after the last key; null while there is none. */
export function useAdvice(question: Question): ComputeAdvice | null {
  const [advice, setAdvice] = useState<ComputeAdvice | null>(null);
  const asked = JSON.stringify(question);
  useEffect(() => {
    let gone = false;
    const ask = async (): Promise<void> => {
      try {
        const reply = await getAdvice(JSON.parse(asked) as Question);
        if (!gone) setAdvice(reply.advice);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        if (!gone) setAdvice(null); // a value that cannot be is told when the form is sent
      }
    };
    const timer = window.setTimeout(() => void ask(), TYPING_MS);
    return () => {
      gone = true;
      window.clearTimeout(timer);
    };
  }, [asked]);
  return advice;
}

export function AdvicePanel({ advice }: { readonly advice: ComputeAdvice | null }): ReactNode {
  if (advice === null) return null;
  return (
    <div className="advice" role="status">
      <div className="advice-jobs">
        {advice.jobs.map((job, place) => (
          <span
            key={`${job.job_type} ${place}`}
            className={`advice-job ${job.slot_key === "" ? "advice-waits" : "advice-runs"}`}
            title={job.slot_key === "" ? job.sentence : `${job.slot_key}, needs ${memory(job.gpu_memory_min_mib)}`}
          >
            {jobType(job.job_type)} {job.slot_key === "" ? "waits" : "runs"}
          </span>
        ))}
        <span className="dim">
          {count(advice.free_slots)} of {count(advice.slots)} slots free now
        </span>
      </div>
      {advice.sentences.map((sentence) => (
        <p key={sentence}>{sentence}</p>
      ))}
    </div>
  );
}
