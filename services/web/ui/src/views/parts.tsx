// The small pieces all views are made of.
import { type MouseEvent, type ReactNode, useEffect, useRef } from "react";
import { capital, count } from "../format";
import type { SessionCounts } from "../records";
import { navigate } from "../router";

/** A link within the page. */
export function Link(props: {
  readonly to: string;
  readonly children: ReactNode;
  readonly className?: string;
  readonly label?: string;
  readonly hint?: string;
}): ReactNode {
  const follow = (event: MouseEvent): void => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    navigate(props.to);
  };
  return (
    <a href={props.to} onClick={follow} className={props.className} aria-label={props.label} title={props.hint}>
      {props.children}
    </a>
  );
}

const TONE: Readonly<Record<string, string>> = {
  running: "accent",
  starting: "accent",
  held: "accent",
  completing: "accent",
  up: "good",
  completed: "good",
  done: "good",
  waiting: "warn",
  pausing: "warn",
  stopping: "warn",
  releasing: "warn",
  reserved: "warn",
  suspect: "warn",
  parked: "warn",
  failed: "bad",
  lost: "bad",
  quarantined: "bad",
};

/** A state as a coloured word. */
export function Pill({ state }: { readonly state: string }): ReactNode {
  return <span className={`pill pill-${TONE[state] ?? "calm"}`}>{capital(state)}</span>;
}

/** A number with its name. */
export function Stat(props: {
  readonly name: string;
  readonly value: ReactNode;
  readonly unit?: string;
  readonly tone?: string;
  readonly hint?: string;
}): ReactNode {
  return (
    <div className={`stat ${props.tone ?? ""}`} title={props.hint}>
      <div className="stat-value">
        {props.value}
        {props.unit !== undefined && <span className="stat-unit">{props.unit}</span>}
      </div>
      <div className="stat-name">{props.name}</div>
    </div>
  );
}

type Progress = Pick<SessionCounts, "found" | "ready" | "running" | "done" | "quarantined">;

/** How the movies found are distributed over the states. */
export function ProgressBar({ counts }: { readonly counts: Progress }): ReactNode {
  const label = `${count(counts.done)} of ${count(counts.found)} movies done, ${count(counts.quarantined)} failed`;
  const part = (value: number): string => `${(100 * value) / Math.max(1, counts.found)}%`;
  return (
    <div className="progress" role="img" aria-label={label} title={label}>
      <div className="progress-done" style={{ width: part(counts.done) }} />
      <div className="progress-failed" style={{ width: part(counts.quarantined) }} />
      <div className="progress-running" style={{ width: part(counts.running) }} />
    </div>
  );
}

/** What to say where nothing is yet: what is missing and what to do. */
export function Empty({ title, children }: { readonly title: string; readonly children?: ReactNode }): ReactNode {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children !== undefined && <div>{children}</div>}
    </div>
  );
}

/** A sentence that asks for attention. */
export function Alert({ tone, children }: { readonly tone: "info" | "warn" | "bad"; readonly children: ReactNode }): ReactNode {
  return (
    <div className={`alert alert-${tone}`} role={tone === "bad" ? "alert" : "status"}>
      {children}
    </div>
  );
}

/** A choice between a few words. */
export function Choice<T extends string>(props: {
  readonly label: string;
  readonly value: T;
  readonly options: readonly (readonly [T, string])[];
  readonly onChange: (value: T) => void;
}): ReactNode {
  return (
    <div className="choice" role="group" aria-label={props.label}>
      {props.options.map(([value, name]) => (
        <button key={value} type="button" aria-pressed={value === props.value} onClick={() => props.onChange(value)}>
          {name}
        </button>
      ))}
    </div>
  );
}

/** A window over the page; Escape and a click beside it close it. */
export function Dialog(props: {
  readonly label: string;
  readonly className?: string;
  readonly onClose: () => void;
  readonly children: ReactNode;
}): ReactNode {
  const reference = useRef<HTMLDialogElement>(null);
  const { onClose } = props;
  useEffect(() => {
    const dialog = reference.current;
    if (dialog === null) return;
    dialog.showModal();
    (dialog.querySelector<HTMLElement>("input") ?? dialog.querySelector<HTMLElement>(".dialog-body"))?.focus();
    return () => dialog.close();
  }, []);
  const pressed = useRef(false);
  return (
    <dialog
      ref={reference}
      aria-label={props.label}
      className={props.className}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onPointerDown={(event) => {
        pressed.current = event.target === reference.current;
      }}
      onClick={(event) => {
        if (pressed.current && event.target === reference.current) onClose();
      }}
    >
      <div className="dialog-body" tabIndex={-1}>{props.children}</div>
    </dialog>
  );
}
