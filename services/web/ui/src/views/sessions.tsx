// All sessions, and the way to a new one.
import { type MouseEvent, type ReactNode, useState } from "react";
import { count, moment, roughDuration, shortCount } from "../format";
import { useKeys, useNow } from "../hooks";
import type { Session } from "../records";
import { navigate, sessionPath } from "../router";
import type { State } from "../store";
import { NewSessionForm } from "./new_session";
import { Empty, Link, Pill, ProgressBar } from "./parts";

export function SessionsView({ state }: { readonly state: State }): ReactNode {
  const [creating, setCreating] = useState(false);
  const now = useNow();
  useKeys((key) => {
    if (key !== "n" || creating) return false;
    setCreating(true);
    return true;
  });
  return (
    <section className="sessions">
      <div className="sessions-head">
        <h1>Sessions</h1>
        <button type="button" className="primary" title="Key n" onClick={() => setCreating(true)}>
          New session
        </button>
      </div>
      {state.sessions.length === 0 ? (
        <Empty title="No sessions yet">
          <p>
            A session watches one folder that a microscope fills, and processes every movie in it. Choose “New session”,
            name the folder and the diameter of your particle; the rest is read from the microscope's files.
          </p>
          <p>
            Only looking around? <code>frazil demo</code> starts a simulated microscope that appears here.
          </p>
        </Empty>
      ) : (
        <div className="panel scroll-x">
          <table className="table sessions-table">
            <thead>
              <tr>
                <th>Session</th>
                <th>State</th>
                <th className="wide">Movies</th>
                <th className="number">Found</th>
                <th className="number">Done</th>
                <th className="number">Failed</th>
                <th className="number">Particles</th>
                <th className="number">Classified</th>
                <th className="number">Newest file</th>
                <th className="number">Created</th>
              </tr>
            </thead>
            <tbody>
              {state.sessions.map((session) => (
                <SessionRow key={session.session_id} session={session} now={now} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {creating && <NewSessionForm lanes={state.lanes} onClose={() => setCreating(false)} />}
    </section>
  );
}

function SessionRow({ session, now }: { readonly session: Session; readonly now: number }): ReactNode {
  const counts = session.counts;
  const problem = session.state_reason || session.scan?.problem || "";
  const address = sessionPath(session.session_id);
  const watched = session.state === "running" || session.state === "completing";
  const open = (event: MouseEvent): void => {
    if ((event.target as HTMLElement).closest("a") === null) navigate(address); // the link goes there by itself
  };
  return (
    <tr className="clickable" onClick={open}>
      <td className="session-cell">
        <Link to={address} className="session-name">
          {session.name}
        </Link>
        <div className={problem === "" ? "path" : "bad-text ellipsis"} title={problem || session.parameters?.movie_folder}>
          {problem || session.parameters?.movie_folder}
        </div>
      </td>
      <td>
        <Pill state={session.state} />
      </td>
      <td className="wide">{counts !== null && <ProgressBar counts={counts} />}</td>
      <td className="number">{count(counts?.found)}</td>
      <td className="number">{count(counts?.done)}</td>
      <td className={`number ${(counts?.quarantined ?? 0) > 0 ? "bad-text" : ""}`}>{count(counts?.quarantined)}</td>
      <td className="number">{shortCount(counts?.particles)}</td>
      <td className="number">{shortCount(counts?.particles_classified)}</td>
      <td className="number dim">
        {watched && session.scan !== null && session.scan.files_seen > 0
          ? `${roughDuration(session.scan.seconds_since_change)} ago`
          : "–"}
      </td>
      <td className="number dim">{moment(session.create_time, now)}</td>
    </tr>
  );
}
