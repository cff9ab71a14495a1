// Parameters of a session that has begun: what changes, what is redone for it, and thresholds of picks tried on a micrograph.
import { type ReactNode, useEffect, useMemo, useState } from "react";
import { ApiError, getExposure, updateParameters, type Values } from "../api";
import { known } from "../format";
import type { ExposureSummary, Session } from "../records";
import { FieldRow } from "./field_row";
import { Alert, Choice, Dialog } from "./parts";
import { PicksTuner } from "./picks_tuner";
import { type Field, FILES, MAIN, MICROSCOPE, PICKING, PROCESSING, readText, showValue } from "./session_fields";

const SECTIONS: readonly (readonly [string, readonly Field[]])[] = [
  ["Particle", MAIN.filter((field) => field.name.startsWith("particle"))],
  ["Picking", PICKING],
  ["Microscope", MICROSCOPE],
  ["Files", FILES],
  ["Box and reconstruction", PROCESSING.filter((field) => field.name !== "until")],
];
const DRY_RUN_MS = 400;

type Texts = Readonly<Record<string, string>>;

export function ParametersDialog(props: {
  readonly session: Session;
  readonly exposures: readonly ExposureSummary[];
  readonly onClose: () => void;
}): ReactNode {
  const { session, exposures } = props;
  const [tab, setTab] = useState<"fields" | "picks">("fields");
  const [texts, setTexts] = useState<Texts>({});
  const [newOnly, setNewOnly] = useState(false);
  const [busy, setBusy] = useState(false);
  const shown = useMemo(() => textsOf(session), [session]);
  const changes = useMemo(() => changesOf(shown, texts), [shown, texts]);
  const outlook = useOutlook(session.session_id, changes, newOnly);
  const [problem, setProblem] = useState<ApiError | null>(null);
  const refusal = problem ?? outlook.refusal;
  const set = (name: string, text: string): void => {
    setProblem(null);
    setTexts((old) => ({ ...old, [name]: text }));
  };
  const value = (name: string): string => texts[name] ?? shown[name] ?? "";
  const apply = async (): Promise<void> => {
    setBusy(true);
    try {
      await updateParameters(session.session_id, changes, { newOnly, redoFrom: "", dryRun: false });
      props.onClose();
    } catch (error) {
      setProblem(error instanceof ApiError ? error : new ApiError(0, "", "The parameters could not be changed."));
    }
    setBusy(false);
  };
  const advised = useAdvisedBox(exposures, session);
  return (
    <Dialog label="Parameters" className="form-dialog parameters-dialog" onClose={props.onClose}>
      <div className="form-head">
        <h2>Parameters of {session.name}</h2>
        <Choice
          label="What is shown"
          value={tab}
          options={[
            ["fields", "All"],
            ["picks", "Picks on a micrograph"],
          ]}
          onChange={setTab}
        />
      </div>
      {refusal !== null && <Alert tone="bad">{refusal.message}</Alert>}
      {tab === "picks" ? (
        <PicksTuner session={session} exposures={exposures} value={value} onChange={set} />
      ) : (
        SECTIONS.map(([legend, fields]) => (
          <fieldset key={legend} className="fields fields-five">
            <legend>{legend}</legend>
            {fields.map((field) => (
              <FieldRow
                key={field.name}
                field={{ ...field, placeholder: advised[field.name] ?? field.placeholder ?? "" }}
                value={value(field.name)}
                problem={refusal?.fields[field.name] ?? ""}
                onChange={(text) => set(field.name, text)}
              />
            ))}
          </fieldset>
        ))
      )}
      <div className="form-actions">
        <label className="compute-check">
          <input type="checkbox" checked={newOnly} onChange={(event) => setNewOnly(event.target.checked)} />
          Only for new micrographs
        </label>
        <span className="parameters-outlook">{outlook.sentence}</span>
        <button type="button" onClick={props.onClose}>
          Cancel
        </button>
        <button type="button" className="primary" disabled={busy || Object.keys(changes).length === 0} onClick={() => void apply()}>
          Apply
        </button>
      </div>
    </Dialog>
  );
}

/** Return the texts of all fields as the session's parameters are. */
export function textsOf(session: Session): Texts {
  const set = (session.parameters ?? {}) as Readonly<Record<string, unknown>>;
  const texts: Record<string, string> = {};
  for (const [, fields] of SECTIONS) for (const field of fields) texts[field.name] = showValue(field, set[field.name]);
  if (texts["gain_rotate"] === "") texts["gain_rotate"] = "0";
  return texts;
}

/** Return the parameters whose texts were changed; an emptied one is null. */
export function changesOf(shown: Texts, texts: Texts): Values {
  const changes: Record<string, string | number | null | readonly string[]> = {};
  for (const [, fields] of SECTIONS) {
    for (const field of fields) {
      const text = texts[field.name];
      if (text === undefined || text.trim() === shown[field.name]) continue;
      changes[field.name] = text.trim() === "" ? null : readText(field, text);
    }
  }
  return changes;
}

/** Ask what the changes would redo, once typing has paused. */
function useOutlook(
  session: string,
  changes: Values,
  newOnly: boolean,
): { readonly sentence: string; readonly refusal: ApiError | null } {
  const [outlook, setOutlook] = useState<{ readonly sentence: string; readonly refusal: ApiError | null }>({
    sentence: "",
    refusal: null,
  });
  const asked = JSON.stringify(changes);
  useEffect(() => {
    let gone = false;
    const ask = async (): Promise<void> => {
      if (asked === "{}") {
        setOutlook({ sentence: "Nothing is changed yet.", refusal: null });
        return;
      }
      try {
        const options = { newOnly, redoFrom: "", dryRun: true };
        const reply = await updateParameters(session, JSON.parse(asked) as Values, options);
        if (!gone) setOutlook({ sentence: reply.sentence, refusal: null });
      } catch (error) {
        if (!gone) setOutlook({ sentence: "", refusal: error instanceof ApiError ? error : null });
      }
    };
    const timer = window.setTimeout(() => void ask(), DRY_RUN_MS);
    return () => {
      gone = true;
      window.clearTimeout(timer);
    };
  }, [session, asked, newOnly]);
  return outlook;
}

/** Return the boxes that were advised, in px before and after cropping, where the session leaves them to advice. */
function useAdvisedBox(exposures: readonly ExposureSummary[], session: Session): Readonly<Record<string, string>> {
  const [advised, setAdvised] = useState<Readonly<Record<string, string>>>({});
  const newest = exposures.findLast((one) => (one.particle_count ?? 0) > 0)?.exposure_id ?? "";
  const left = session.parameters?.box_size_px === 0 && session.parameters.output_box_px === 0;
  useEffect(() => {
    let gone = false;
    if (newest === "" || !left) return;
    getExposure(newest).then(
      ({ exposure: { result } }) => {
        const { particle_box_px: box = 0, particle_pixel_size_angstrom: pixel, pixel_size_angstrom: full } = result ?? {};
        if (gone || !known(pixel) || !known(full)) return;
        setAdvised({ box_size_px: `advised: ${Math.round((box * pixel) / full)}`, output_box_px: `advised: ${box}` });
      },
      () => undefined, // the field says "advised" all the same
    );
    return () => {
      gone = true;
    };
  }, [newest, left]);
  return advised;
}
