// Curation: an attribute of all micrographs over time, the interval it must lie in, and how many that leaves.
import { type ReactNode, useMemo, useState } from "react";
import { type AttributeName, updateThresholds } from "../api";
import { count, known } from "../format";
import type { AttributeThreshold, ExposureSummary, Session } from "../records";
import type { State } from "../store";
import type { Axis } from "../selectors";
import { Alert, Choice, Dialog } from "./parts";
import { type Interval, type Point, Scatter, shortNumber } from "./scatter";

const TIME_UNIT = "s since 1970";
const EVERYTHING: Interval = { minimum: null, maximum: null };

export function CurationDialog(props: {
  readonly session: Session;
  readonly state: State;
  readonly onOpen: (exposure: ExposureSummary) => void;
  readonly onClose: () => void;
}): ReactNode {
  const { session, state } = props;
  const shown = state.attributes.filter((one) => one.unit !== TIME_UNIT || one.name === "found_time");
  const [name, setName] = useState("ctf_fit_resolution_angstrom");
  const [dragged, setDragged] = useState<Interval | null>(null);
  const [problem, setProblem] = useState("");
  const [axis, setAxis] = useState<Axis>("time");
  const place = state.attributes.findIndex((one) => one.name === name);
  const attribute = state.attributes[place];
  const done = useMemo(
    () => state.exposures.filter((one) => one.state === "done" && one.attributes !== null),
    [state.exposures],
  );
  const set = session.thresholds.find((one) => one.attribute === name) ?? EVERYTHING;
  const interval = dragged ?? { minimum: set.minimum, maximum: set.maximum };
  const wanted = withInterval(session.thresholds, name, interval);
  const verdicts = useMemo(() => done.map((one) => passes(one, wanted, state.attributes)), [done, wanted, state.attributes]);
  const points = useMemo(() => pointsOf(done, verdicts, place, axis), [done, verdicts, place, axis]);
  const used = verdicts.filter(Boolean).length;

  const send = async (thresholds: readonly AttributeThreshold[]): Promise<void> => {
    setProblem("");
    try {
      await updateThresholds(session.session_id, thresholds);
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
    setDragged(null);
  };
  const change = (next: Interval, finished: boolean): void => {
    setDragged(next);
    if (finished) void send(withInterval(session.thresholds, name, next));
  };
  const open = (key: string): void => {
    const found = done.find((one) => one.exposure_id === key);
    if (found !== undefined) props.onOpen(found);
  };
  return (
    <Dialog label="Curation" className="curation-dialog" onClose={props.onClose}>
      <header className="curation-head">
        <h2>Curation</h2>
        <select aria-label="Attribute" value={name} onChange={(event) => setName(event.target.value)}>
          {shown.map((one) => (
            <option key={one.name} value={one.name}>
              {one.unit === "" || one.unit === TIME_UNIT ? one.title : `${one.title} [${one.unit}]`}
            </option>
          ))}
        </select>
        <Ends interval={interval} unit={attribute?.unit === TIME_UNIT ? "" : (attribute?.unit ?? "")} onChange={(next) => change(next, true)} />
        <span className="spacer" />
        <Choice
          label="Horizontal axis"
          value={axis}
          options={[
            ["time", "Time"],
            ["number", "Number"],
          ]}
          onChange={setAxis}
        />
        <span className="curation-counts">
          <b>{count(used)}</b> used, <b className={used < done.length ? "bad-text" : ""}>{count(done.length - used)}</b> rejected
        </span>
        <button type="button" title="Key Escape" aria-label="Close" onClick={props.onClose}>
          ✕
        </button>
      </header>
      {problem !== "" && <Alert tone="bad">{problem}</Alert>}
      {points.length === 0 ? (
        <p className="curation-none">No processed micrograph has this attribute yet.</p>
      ) : (
        <Scatter
          label={`${attribute?.title ?? name} over ${axis === "time" ? "the time it was found" : "the number of the micrograph"}`}
          points={points}
          interval={interval}
          onInterval={change}
          onOpen={open}
          xTick={axis === "time" ? clock : wholeNumber}
        />
      )}
      <footer className="curation-foot">
        <Thresholds session={session} attributes={state.attributes} onChoose={setName} onRemove={(gone) => void send(session.thresholds.filter((one) => one.attribute !== gone))} />
        <span className="dim">Drag the lines, or type. Rejected micrographs keep their results; their particles leave 2D and 3D.</span>
      </footer>
    </Dialog>
  );
}

/** The two ends as inputs; Enter or leaving the field applies them. */
function Ends(props: {
  readonly interval: Interval;
  readonly unit: string;
  readonly onChange: (interval: Interval) => void;
}): ReactNode {
  const end = (which: keyof Interval, label: string): ReactNode => (
    <label className="curation-end">
      {label}
      <input
        key={String(props.interval[which])}
        type="text"
        inputMode="decimal"
        aria-label={which === "minimum" ? "Least value" : "Greatest value"}
        placeholder="any"
        defaultValue={props.interval[which] === null ? "" : String(props.interval[which])}
        onBlur={(event) => apply(which, event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter") apply(which, event.currentTarget.value);
        }}
      />
    </label>
  );
  const apply = (which: keyof Interval, text: string): void => {
    const value = text.trim() === "" ? null : Number(text.replace(",", "."));
    if (value === props.interval[which] || (value !== null && !Number.isFinite(value))) return;
    props.onChange({ ...props.interval, [which]: value });
  };
  return (
    <span className="curation-ends">
      {end("minimum", "from")}
      {end("maximum", "to")}
      {props.unit}
    </span>
  );
}

function Thresholds(props: {
  readonly session: Session;
  readonly attributes: readonly AttributeName[];
  readonly onChoose: (name: string) => void;
  readonly onRemove: (name: string) => void;
}): ReactNode {
  if (props.session.thresholds.length === 0) return <span className="dim">No thresholds are set.</span>;
  return (
    <ul className="curation-chips">
      {props.session.thresholds.map((one) => {
        const attribute = props.attributes.find((other) => other.name === one.attribute);
        return (
          <li key={one.attribute}>
            <button type="button" onClick={() => props.onChoose(one.attribute)}>
              {attribute?.title ?? one.attribute} {intervalWords(one)} {attribute?.unit}
            </button>
            <button type="button" aria-label={`Remove the threshold on ${attribute?.title ?? one.attribute}`} onClick={() => props.onRemove(one.attribute)}>
              ✕
            </button>
          </li>
        );
      })}
    </ul>
  );
}

/** Say an interval in few characters. */
export function intervalWords({ minimum, maximum }: Interval): string {
  if (minimum !== null && maximum !== null) return `${shortNumber(minimum)}–${shortNumber(maximum)}`;
  return minimum !== null ? `≥ ${shortNumber(minimum)}` : maximum !== null ? `≤ ${shortNumber(maximum)}` : "any";
}

/** Return thresholds with an attribute's interval in place of the one it had. */
export function withInterval(
  thresholds: readonly AttributeThreshold[],
  attribute: string,
  interval: Interval,
): readonly AttributeThreshold[] {
  const others = thresholds.filter((one) => one.attribute !== attribute);
  return interval.minimum === null && interval.maximum === null ? others : [...others, { attribute, ...interval }];
}

/** Tell whether thresholds, or a person's word, let an exposure's particles be used: what the scheduler will say. */
export function passes(
  exposure: ExposureSummary,
  thresholds: readonly AttributeThreshold[],
  attributes: readonly AttributeName[],
): boolean {
  if (exposure.override === "accept" || exposure.override === "reject") return exposure.override === "accept";
  return thresholds.every((one) => {
    const value = exposure.attributes?.[attributes.findIndex((other) => other.name === one.attribute)];
    return known(value) && value >= (one.minimum ?? -Infinity) && value <= (one.maximum ?? Infinity);
  });
}

function pointsOf(
  exposures: readonly ExposureSummary[],
  used: readonly boolean[],
  place: number,
  axis: Axis,
): readonly Point[] {
  return exposures.flatMap((one, index) => {
    const y = one.attributes?.[place];
    const x = axis === "time" ? one.register_time : one.number;
    return known(x) && known(y) ? [{ key: one.exposure_id, x, y, used: used[index] ?? true }] : [];
  });
}

function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

const wholeNumber = (value: number): string => (Number.isInteger(value) ? String(value) : "");
