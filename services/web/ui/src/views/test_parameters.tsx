// Other parameters tried on one micrograph, beside its session: what it is now, and what it would be.
import { type ReactNode, useEffect, useMemo, useState } from "react";
import {
  ApiError,
  getTested,
  getTestedPicks,
  getWait,
  type Picks,
  testAddress,
  testExposure,
  type Tested,
  thumbnailAddress,
} from "../api";
import { known } from "../format";
import type { ExposureSummary, Job, Session } from "../records";
import type { State } from "../store";
import { FieldRow } from "./field_row";
import { changesOf, textsOf } from "./parameters";
import { Alert, Dialog } from "./parts";
import { Circles, PicksOverlay } from "./picks";
import { shortNumber } from "./scatter";
import { MAIN, PICKING, PROCESSING } from "./session_fields";

const FIELDS = [
  ...MAIN.filter((field) => field.name.startsWith("particle")),
  ...PICKING,
  ...PROCESSING.filter((field) => field.name.includes("box")),
];
const OVER = ["done", "failed", "cancelled"];

export function TestDialog(props: {
  readonly exposure: ExposureSummary;
  readonly session: Session;
  readonly state: State;
  readonly onClose: () => void;
}): ReactNode {
  const { exposure, session, state } = props;
  const [texts, setTexts] = useState<Readonly<Record<string, string>>>({});
  const [jobId, setJobId] = useState("");
  const [problem, setProblem] = useState<ApiError | null>(null);
  const shown = useMemo(() => textsOf(session), [session]);
  const job = state.jobs.find((one) => one.job_id === jobId);
  const running = jobId !== "" && (job === undefined || !OVER.includes(job.state));
  const tested = useTested(exposure.exposure_id, job?.state === "done" ? jobId : "");
  const run = async (): Promise<void> => {
    setProblem(null);
    try {
      setJobId((await testExposure(exposure.exposure_id, changesOf(shown, texts))).job_id);
    } catch (error) {
      setProblem(error instanceof ApiError ? error : new ApiError(0, "", "The test could not be started."));
    }
  };
  const diameter = Number(texts["particle_diameter_angstrom"] ?? shown["particle_diameter_angstrom"]);
  return (
    <Dialog label="Test parameters" className="form-dialog test-dialog" onClose={props.onClose}>
      <div className="form-head">
        <h2>Test parameters on micrograph {exposure.number}</h2>
      </div>
      {problem !== null && <Alert tone="bad">{problem.message}</Alert>}
      {job?.state === "failed" && <Alert tone="bad">{job.reason}</Alert>}
      <fieldset className="fields fields-five">
        {FIELDS.map((field) => (
          <FieldRow
            key={field.name}
            field={field}
            value={texts[field.name] ?? shown[field.name] ?? ""}
            problem={problem?.fields[field.name] ?? ""}
            onChange={(text) => setTexts((old) => ({ ...old, [field.name]: text }))}
          />
        ))}
      </fieldset>
      <div className="test-pictures">
        <figure>
          <div className="test-picture">
            <img src={thumbnailAddress(exposure)} alt="As it is now" />
            <PicksOverlay exposure={exposure} diameterAngstrom={session.parameters?.particle_diameter_angstrom ?? 0} fit="contain" />
          </div>
          <figcaption>Now</figcaption>
        </figure>
        <figure>
          <div className="test-picture">
            {tested === null ? (
              <p className="curation-none">{running ? <Progress job={job} /> : "Change a parameter and run the test."}</p>
            ) : (
              <>
                <img src={testAddress(exposure.exposure_id, jobId, "thumbnail.png")} alt="With the parameters tested" />
                <Circles picks={tested.picks} diameterAngstrom={diameter} fit="contain" />
              </>
            )}
          </div>
          <figcaption>Test</figcaption>
        </figure>
        {tested !== null && <Differences exposure={exposure} state={state} tested={tested.tested} />}
      </div>
      <div className="form-actions">
        <span className="parameters-outlook">Nothing of the session is touched.</span>
        <button type="button" onClick={props.onClose}>
          Close
        </button>
        <button type="button" className="primary" disabled={running} onClick={() => void run()}>
          {jobId === "" ? "Run test" : "Run again"}
        </button>
      </div>
    </Dialog>
  );
}

/** What the test does, or why it waits. */
function Progress({ job }: { readonly job: Job | undefined }): ReactNode {
  const [wait, setWait] = useState("");
  const id = job?.state === "waiting" ? job.job_id : "";
  useEffect(() => {
    let gone = false;
    setWait("");
    if (id === "") return;
    getWait(id).then(
      (reply) => {
        if (!gone) setWait(reply.wait.sentence);
      },
      () => undefined, // it may have started meanwhile
    );
    return () => {
      gone = true;
    };
  }, [id]);
  return <>{wait || job?.progress || "Starting…"}</>;
}

function Differences(props: {
  readonly exposure: ExposureSummary;
  readonly state: State;
  readonly tested: Tested;
}): ReactNode {
  const rows = props.state.attributes.flatMap((attribute, place) => {
    const before = props.exposure.attributes?.[place];
    const after = props.tested.attributes[attribute.name];
    const changed = known(before) && known(after) ? Math.abs(before - after) > 1e-4 * Math.abs(before) : before !== after;
    return changed && attribute.unit !== "s since 1970" ? [{ ...attribute, before, after }] : [];
  });
  const number = (value: number | null | undefined): string => (known(value) ? shortNumber(value) : "–");
  if (rows.length === 0) return <p className="curation-none">No attribute differs.</p>;
  return (
    <table className="test-table">
      <thead>
        <tr>
          <th>Attribute</th>
          <th>Now</th>
          <th>Test</th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.name}>
            <td>
              {row.title} <span className="dim">{row.unit}</span>
            </td>
            <td>{number(row.before)}</td>
            <td>{number(row.after)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function useTested(exposureId: string, jobId: string): { readonly tested: Tested; readonly picks: Picks } | null {
  const [found, setFound] = useState<{ readonly tested: Tested; readonly picks: Picks } | null>(null);
  useEffect(() => {
    let gone = false;
    setFound(null);
    if (jobId === "") return;
    Promise.all([getTested(exposureId, jobId), getTestedPicks(exposureId, jobId)]).then(
      ([tested, picks]) => {
        if (!gone) setFound({ tested, picks });
      },
      () => undefined, // the job's state is shown; a missing picture speaks for itself
    );
    return () => {
      gone = true;
    };
  }, [exposureId, jobId]);
  return found;
}
