// Class averages: tiles cut from the sheet, the best first, junk in the background.
import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { type ClassChange, sheetAddress } from "../api";
import { count, known, measure, shortCount } from "../format";
import type { ClassAverage, ClassAverages, Session } from "../records";
import { SelectionBar, toggled, useSelection } from "./class_selection";
import { Choice, Empty } from "./parts";

type Order = "count" | "resolution" | "number";

/** Return the classes in an order; junk keeps its place in it. */
export function sortClasses(classes: readonly ClassAverage[], order: Order): readonly ClassAverage[] {
  const rank = (one: ClassAverage): number => {
    if (order === "count") return -one.particle_count;
    if (order === "resolution") return one.resolution_angstrom ?? Infinity;
    return one.class_number;
  };
  return [...classes].sort((a, b) => {
    const [first, second] = [rank(a), rank(b)];
    return first === second ? a.class_number - b.class_number : first - second;
  });
}

export function ClassesPanel(props: {
  readonly classes: ClassAverages | null;
  readonly session: Session;
  readonly particles: number;
}): ReactNode {
  const { classes, particles } = props;
  const [order, setOrder] = useState<Order>("count");
  const [hideJunk, setHideJunk] = useState(false);
  const shown = useSheet(classes);
  const [change, problem] = useSelection(props.session.session_id);
  const sorted = useMemo(() => (shown === null ? [] : sortClasses(shown.classes.classes, order)), [shown, order]);
  return (
    <div className="classes panel">
      <div className="panel-head">
        <h2>2D classes</h2>
        <span className="spacer" />
        <button type="button" className="toggle" aria-pressed={hideJunk} onClick={() => setHideJunk(!hideJunk)}>
          Hide junk
        </button>
        <Choice
          label="Order of classes"
          value={order}
          options={[
            ["count", "Count"],
            ["resolution", "Resolution"],
            ["number", "Number"],
          ]}
          onChange={setOrder}
        />
      </div>
      {shown !== null && <Summary classes={shown.classes} particles={particles} />}
      {shown !== null && <SelectionBar classes={shown.classes} problem={problem} onChange={change} />}
      <div className="classes-frame">
        {shown === null ? (
          <ClassesEmpty session={props.session} particles={particles} announced={classes !== null} />
        ) : (
          <div className="classes-grid">
            {sorted
              .filter((one) => !(hideJunk && one.junk))
              .map((one) => (
                <ClassTile key={one.class_number} average={one} classes={shown.classes} sheet={shown.sheet} onChange={change} />
              ))}
          </div>
        )}
      </div>
    </div>
  );
}

function Summary({ classes, particles }: { readonly classes: ClassAverages; readonly particles: number }): ReactNode {
  const junk = classes.classes.filter((one) => one.junk).length;
  return (
    <div className="classes-facts">
      <span>
        Classified {count(classes.particle_count)} of {count(Math.max(particles, classes.particle_count))} particles
      </span>
      <span>{classes.final ? "final" : `revision ${classes.revision}`}</span>
      <span className="ellipsis">
        {junk} of {classes.classes.length} junk
      </span>
      <span className="spacer" />
      <span className="ellipsis" title="Under each class: particles, resolution where the half averages agree, effective number of classes">
        count · resolution · ESS
      </span>
    </div>
  );
}

interface Shown {
  readonly classes: ClassAverages;
  readonly sheet: HTMLImageElement;
}

/** Return the newest classes whose sheet has arrived: the old ones stay until the new picture is there. */
function useSheet(classes: ClassAverages | null): Shown | null {
  const [shown, setShown] = useState<Shown | null>(null);
  useEffect(() => {
    if (classes === null || classes.sheet === "") {
      setShown(null);
      return;
    }
    let gone = false;
    const sheet = new Image();
    sheet.onload = () => {
      if (!gone) setShown({ classes, sheet });
    };
    sheet.src = sheetAddress(classes);
    return () => {
      gone = true;
    };
  }, [classes]);
  return shown;
}

function ClassTile(props: {
  readonly average: ClassAverage;
  readonly classes: ClassAverages;
  readonly sheet: HTMLImageElement;
  readonly onChange: (change: ClassChange) => void;
}): ReactNode {
  const { average, classes, sheet, onChange } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const tile = classes.sheet_tile_px;
  useEffect(() => {
    const pen = canvas.current?.getContext("2d");
    if (pen === null || pen === undefined || classes.sheet_columns < 1) return;
    const place = classes.classes.findIndex((one) => one.class_number === average.class_number);
    const left = (place % classes.sheet_columns) * tile;
    const top = Math.floor(place / classes.sheet_columns) * tile;
    pen.drawImage(sheet, left, top, tile, tile, 0, 0, tile, tile);
  }, [average.class_number, classes, sheet, tile]);
  const share = classes.particle_count > 0 ? average.particle_count / classes.particle_count : 0;
  const title =
    `Class ${average.class_number}, ${average.selected ? "selected" : "excluded"}${average.junk ? ", junk" : ""}: ${count(average.particle_count)} particles ` +
    `(${(100 * share).toFixed(1)} %), ${measure(average.resolution_angstrom, 1, "Å")}, ` +
    `${measure(average.effective_classes, 1)} effective classes`;
  return (
    <figure className={`class ${average.selected ? "" : "class-excluded"}`} title={title}>
      <button type="button" aria-pressed={average.selected} aria-label={title} onClick={() => onChange(toggled(average))}>
        <canvas ref={canvas} width={tile} height={tile} />
      </button>
      <figcaption>
        <span className="class-count">{shortCount(average.particle_count)}</span>
        <span>{measure(average.resolution_angstrom, 1, "Å")}</span>
        <span className="dim">{known(average.effective_classes) ? average.effective_classes.toFixed(1) : "–"}</span>
      </figcaption>
    </figure>
  );
}

function ClassesEmpty(props: {
  readonly session: Session;
  readonly particles: number;
  readonly announced: boolean;
}): ReactNode {
  const { session, particles, announced } = props;
  if (announced) return <Empty title="Loading class averages…" />;
  if (session.parameters?.until === "preprocess") {
    return <Empty title="No 2D classes">This session stops after preprocessing.</Empty>;
  }
  return (
    <Empty title="No 2D classes yet">
      {particles === 0
        ? "They appear once micrographs have been picked and a first batch of particles is classified."
        : `${count(particles)} particles are extracted; the first classes appear after the first pass over them.`}
    </Empty>
  );
}
