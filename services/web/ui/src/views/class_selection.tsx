// Which 2D classes are selected: a click on a class, and thresholds for those that nobody clicked.
import { type FormEvent, type ReactNode, useState } from "react";
import { type ClassChange, selectClasses } from "../api";
import { count } from "../format";
import type { ClassAverage, ClassAverages, ClassThresholds } from "../records";
import { Alert } from "./parts";

const NONE: ClassThresholds = {
  particle_count_min: 0,
  resolution_max_angstrom: 0,
  effective_classes_max: 0,
  ignore_ranking: false,
};

const FIELDS: readonly (readonly [keyof Omit<ClassThresholds, "ignore_ranking">, string, string])[] = [
  ["particle_count_min", "Particles at least", "1"],
  ["resolution_max_angstrom", "Resolution at most, Å", "any"],
  ["effective_classes_max", "ESS at most", "any"],
];

/** Return what a click on a class asks for. */
export function toggled(one: ClassAverage): ClassChange {
  return one.selected ? { exclude: [one.class_number] } : { select: [one.class_number] };
}

/** Return thresholds from what was typed; an empty field is no threshold, null is no number. */
export function thresholdsFrom(typed: Readonly<Record<string, string>>, ignoreRanking: boolean): ClassThresholds | null {
  const values = FIELDS.map(([name]) => Number((typed[name] ?? "").trim() || 0));
  if (!values.every((value) => Number.isFinite(value) && value >= 0)) return null;
  const [particles, resolution, spread] = values as [number, number, number];
  return {
    particle_count_min: Math.round(particles),
    resolution_max_angstrom: resolution,
    effective_classes_max: spread,
    ignore_ranking: ignoreRanking,
  };
}

/** Return a function that changes what is selected, and why the last change failed. */
export function useSelection(session: string): readonly [(change: ClassChange) => void, string] {
  const [problem, setProblem] = useState("");
  const change = (wanted: ClassChange): void => {
    selectClasses(session, wanted)
      .then(() => setProblem(""))
      .catch((error: unknown) => setProblem(error instanceof Error ? error.message : "That did not work."));
  };
  return [change, problem];
}

export function SelectionBar(props: {
  readonly classes: ClassAverages;
  readonly problem: string;
  readonly onChange: (change: ClassChange) => void;
}): ReactNode {
  const { classes, problem, onChange } = props;
  const [open, setOpen] = useState(false);
  const selection = classes.selection;
  const selected = classes.classes.filter((one) => one.selected).length;
  const used = selection !== null && selection.revision > 0 && !selection.all_particles;
  return (
    <>
      <div className="class-selection">
        <span title="Click a class to select or exclude it">
          {selected} selected, {count(classes.selected_particle_count)} particles
        </span>
        <span className="dim ellipsis">{used ? "3D takes these" : "3D takes all particles until you select"}</span>
        <span className="spacer" />
        {selection !== null && selection.overrides.length > 0 && (
          <button type="button" className="toggle" onClick={() => onChange({ release_all: true })}>
            Automatic
          </button>
        )}
        <button type="button" className="toggle" aria-pressed={open} onClick={() => setOpen(!open)}>
          Thresholds
        </button>
      </div>
      {problem !== "" && <Alert tone="bad">{problem}</Alert>}
      {open && <Thresholds set={selection?.thresholds ?? NONE} onChange={onChange} />}
    </>
  );
}

function Thresholds(props: { readonly set: ClassThresholds; readonly onChange: (change: ClassChange) => void }): ReactNode {
  const { set, onChange } = props;
  const [typed, setTyped] = useState<Readonly<Record<string, string>>>(
    Object.fromEntries(FIELDS.map(([name]) => [name, set[name] ? String(set[name]) : ""])),
  );
  const [ignoreRanking, setIgnoreRanking] = useState(set.ignore_ranking);
  const thresholds = thresholdsFrom(typed, ignoreRanking);
  const send = (event: FormEvent): void => {
    event.preventDefault();
    if (thresholds !== null) onChange({ thresholds });
  };
  return (
    <form className="class-thresholds" onSubmit={send}>
      {FIELDS.map(([name, label, placeholder]) => (
        <label key={name}>
          {label}
          <input
            inputMode="decimal"
            value={typed[name]}
            placeholder={placeholder}
            onChange={(event) => setTyped({ ...typed, [name]: event.target.value })}
          />
        </label>
      ))}
      <label className="class-ranking">
        <input type="checkbox" checked={!ignoreRanking} onChange={(event) => setIgnoreRanking(!event.target.checked)} />
        Exclude junk
      </label>
      <button type="submit" disabled={thresholds === null}>
        Apply
      </button>
    </form>
  );
}
