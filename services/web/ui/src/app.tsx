// The frame of the page: bar on top, the view its address names, and whether the page is connected.
import { type ReactNode, useEffect } from "react";
import crystal from "./assets/crystal.svg";
import { ClockOffset, useKeys, useLive } from "./hooks";
import { navigate, type Route, useRoute } from "./router";
import type { State } from "./store";
import { Empty, Link } from "./views/parts";
import { ResourcesView } from "./views/resources";
import { SessionView } from "./views/session";
import { SessionsView } from "./views/sessions";

export function App(): ReactNode {
  const route = useRoute();
  const state = useLive(route.view === "session" ? route.session : "");
  useEffect(() => {
    document.title = title(route, state);
  });
  useKeys((key) => {
    if (key === "r" && route.view !== "resources") navigate("/resources");
    else if (key === "s" && route.view !== "sessions") navigate("/");
    else return false;
    return true;
  });
  return (
    <ClockOffset.Provider value={state.clockOffset}>
      <div className="page">
        <header className="bar">
          <Link to="/" className="brand" label="Frazil: all sessions">
            <img src={crystal} alt="" width="20" height="20" />
            Frazil
          </Link>
          <nav className="places" aria-label="Places">
            <Link to="/" className={route.view === "sessions" ? "here" : ""} hint="Key s">
              Sessions
            </Link>
            <Link to="/resources" className={route.view === "resources" ? "here" : ""} hint="Key r">
              Resources
            </Link>
          </nav>
          <ConnectionSign state={state} />
        </header>
        <main>{view(route, state)}</main>
      </div>
    </ClockOffset.Provider>
  );
}

function view(route: Route, state: State): ReactNode {
  if (state.missing && route.view === "session") {
    return (
      <Empty title="This session is not known here">
        {state.problem} <Link to="/">See all sessions</Link>
      </Empty>
    );
  }
  if (!state.loaded && route.view !== "unknown") return <Waiting state={state} />;
  switch (route.view) {
    case "sessions":
      return <SessionsView state={state} />;
    case "session":
      return <SessionView key={route.session} state={state} openExposure={route.exposure} />;
    case "resources":
      return <ResourcesView state={state} />;
    case "unknown":
      return (
        <Empty title="There is nothing at this address">
          <Link to="/">See all sessions</Link>
        </Empty>
      );
  }
}

function Waiting({ state }: { readonly state: State }): ReactNode {
  if (state.connection === "connecting") return <Empty title="Loading…" />;
  return (
    <Empty title={state.connection === "outage" ? "The scheduler does not answer" : "Frazil does not answer"}>
      {state.problem}
    </Empty>
  );
}

const CONNECTION = {
  connecting: "Connecting",
  live: "Live",
  outage: "Scheduler unreachable",
  lost: "Connection lost",
} as const;

function ConnectionSign({ state }: { readonly state: State }): ReactNode {
  const { connection, problem } = state;
  return (
    <div className="connection" role="status">
      {connection !== "live" && connection !== "connecting" && state.loaded && (
        <span className="connection-why">{problem}</span>
      )}
      <span className={`dot dot-${connection}`} />
      {CONNECTION[connection]}
    </div>
  );
}

function title(route: Route, state: State): string {
  if (route.view === "resources") return "Resources · Frazil";
  const name = route.view === "session" ? state.sessions[0]?.name : undefined;
  return name === undefined ? "Frazil" : `${name} · Frazil`;
}
