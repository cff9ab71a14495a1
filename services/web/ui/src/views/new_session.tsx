// The form for a new session. The server judges the fields; its sentences are shown where they belong.
import { type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";
import { ApiError, changeSession, createSession, getProfiles, newRequestId, type NewSession, type Values } from "../api";
import type { Lane, Profile } from "../records";
import { navigate, sessionPath } from "../router";
import { AdvicePanel, useAdvice } from "./advice";
import { Alert, Dialog } from "./parts";

interface Field {
  readonly name: string;
  readonly label: string;
  readonly kind: "text" | "number" | "select";
  readonly unit?: string;
  readonly placeholder?: string;
  readonly hint?: string;
  readonly options?: readonly (readonly [string, string])[];
  readonly wide?: boolean;
}

const FROM_METADATA = "from metadata";

const MAIN: readonly Field[] = [
  { name: "name", label: "Name", kind: "text", placeholder: "apoferritin-grid7", hint: "Also the name of its folder" },
  {
    name: "movie_folder",
    label: "Movie folder",
    kind: "text",
    placeholder: "/data/microscope/grid7",
    hint: "As the machine that runs Frazil sees it; never written to",
    wide: true,
  },
  { name: "particle_diameter_angstrom", label: "Particle diameter", kind: "number", unit: "Å", placeholder: "140" },
  {
    name: "particle_diameter_max_angstrom",
    label: "Largest diameter",
    kind: "number",
    unit: "Å",
    placeholder: "same",
    hint: "For elongated particles",
  },
];

const MICROSCOPE: readonly Field[] = [
  { name: "pixel_size_angstrom", label: "Pixel size", kind: "number", unit: "Å", placeholder: FROM_METADATA },
  { name: "voltage_kv", label: "Voltage", kind: "number", unit: "kV", placeholder: FROM_METADATA },
  { name: "spherical_aberration_mm", label: "Cs", kind: "number", unit: "mm", placeholder: FROM_METADATA },
  { name: "amplitude_contrast", label: "Amplitude contrast", kind: "number", placeholder: "0.1" },
  {
    name: "dose_per_frame_e_per_angstrom2",
    label: "Dose per frame",
    kind: "number",
    unit: "e/Å²",
    placeholder: FROM_METADATA,
  },
];

const FILES: readonly Field[] = [
  { name: "movie_glob", label: "Movies", kind: "text", placeholder: "every movie", hint: "Pattern below the folder" },
  { name: "gain_path", label: "Gain reference", kind: "text", placeholder: "none, or from metadata" },
  {
    name: "gain_flip",
    label: "Flip gain",
    kind: "select",
    options: [
      ["none", "no"],
      ["x", "along x"],
      ["y", "along y"],
    ],
  },
  {
    name: "gain_rotate",
    label: "Rotate gain",
    kind: "select",
    options: [
      ["0", "no"],
      ["1", "90°"],
      ["2", "180°"],
      ["3", "270°"],
    ],
  },
  { name: "defects_path", label: "Defect file", kind: "text", placeholder: "none" },
  {
    name: "gain_sense",
    label: "Gain",
    kind: "select",
    options: [
      ["", "as usual for its file"],
      ["multiply", "multiplies"],
      ["divide", "divides"],
    ],
  },
  { name: "eer_fractions", label: "EER fractions", kind: "number", placeholder: "40" },
  {
    name: "eer_upsampling",
    label: "EER upsampling",
    kind: "select",
    options: [
      ["", "no"],
      ["2", "2×"],
      ["4", "4×"],
    ],
  },
  {
    name: "load_crop",
    label: "Super-resolution",
    kind: "select",
    options: [
      ["", "crop to physical pixels"],
      ["1", "keep"],
      ["2", "halve"],
    ],
  },
];

const PROCESSING: readonly Field[] = [
  { name: "box_size_px", label: "Box", kind: "number", unit: "px", placeholder: "advised" },
  { name: "class_count", label: "2D classes", kind: "number", placeholder: "50" },
  {
    name: "camera",
    label: "Camera",
    kind: "select",
    options: [
      ["", "not said"],
      ["k2", "K2"],
      ["k2-super-resolution", "K2 super-resolution"],
      ["k3", "K3"],
      ["k3-super-resolution", "K3 super-resolution"],
      ["falcon3", "Falcon 3"],
      ["falcon4", "Falcon 4"],
      ["falcon4-eer", "Falcon 4 EER"],
    ],
  },
  { name: "symmetry", label: "Symmetry", kind: "text", placeholder: "C1" },
  { name: "initial_volume_path", label: "Initial volume", kind: "text", placeholder: "from ab-initio" },
  {
    name: "until",
    label: "Stop after",
    kind: "select",
    options: [
      ["", "the last stage"],
      ["preprocess", "preprocessing"],
      ["class2d", "2D classes"],
      ["refine3d", "3D refinement"],
    ],
  },
];

const RESOURCES: readonly Field[] = [
  { name: "preprocessing_workers", label: "Workers", kind: "number", placeholder: "1" },
  { name: "priority", label: "Priority", kind: "number", placeholder: "0" },
  {
    name: "streaming_start",
    label: "2D starts",
    kind: "select",
    options: [
      ["", "with the session"],
      ["on_request", "on request"],
    ],
  },
  {
    name: "auto_pause",
    label: "Pause by itself",
    kind: "select",
    options: [
      ["", "never"],
      ["graceful", "when all is up to date"],
      ["immediate", "when movies are done"],
    ],
  },
  {
    name: "alternation",
    label: "Few GPUs",
    kind: "select",
    options: [
      ["", "no turns"],
      ["on", "jobs take turns"],
    ],
  },
];

const LANES = ["preprocessing_lane", "reconstruction_lane", "auxiliary_lane"];
const COMPUTE = new Set([...RESOURCES.map((field) => field.name), ...LANES]);

type Texts = Readonly<Record<string, string>>;

/** Turn the form's texts into what the service expects; a text that is no number is sent as it is, for the server to refuse. */
export function readForm(values: Texts): NewSession {
  const parameters: Record<string, string | number> = {};
  const compute: Record<string, string | number | Values> = {};
  const numbers = new Set([...MAIN, ...MICROSCOPE, ...FILES, ...PROCESSING, ...RESOURCES].filter(isNumber).map((field) => field.name));
  for (const [name, text] of Object.entries(values)) {
    const trimmed = text.trim();
    if (name === "name" || trimmed === "") continue;
    const number = Number(trimmed.replace(",", "."));
    const value = numbers.has(name) && Number.isFinite(number) ? number : trimmed;
    if (name === "alternation") compute[name] = { enabled: true };
    else (COMPUTE.has(name) ? compute : parameters)[name] = value;
  }
  return { name: (values["name"] ?? "").trim(), parameters, compute };
}

/** Return the form's texts for a profile: whatever the form shows and the profile sets. */
export function profileTexts(profile: Profile): Texts {
  const texts: Record<string, string> = {};
  const set = { ...profile.parameters, ...profile.compute } as Readonly<Record<string, unknown>>;
  for (const field of [...MAIN, ...MICROSCOPE, ...FILES, ...PROCESSING, ...RESOURCES]) {
    const value = set[field.name];
    if (typeof value === "string" && value !== "" && value !== "unspecified") texts[field.name] = value;
    else if (typeof value === "number" && value !== 0) texts[field.name] = String(value);
  }
  for (const lane of LANES) if (typeof set[lane] === "string" && set[lane] !== "default") texts[lane] = set[lane] as string;
  if (profile.compute?.alternation?.enabled === true) texts["alternation"] = "on";
  return texts;
}

const NUMBERED = new Set(["gain_rotate", "eer_upsampling", "load_crop"]);

function isNumber(field: Field): boolean {
  return field.kind === "number" || NUMBERED.has(field.name);
}

interface Form {
  readonly values: Texts;
  /** Sentences by field. */
  readonly problems: Texts;
  readonly problem: string;
  readonly busy: boolean;
  readonly set: (name: string, value: string) => void;
  readonly fill: (texts: Texts) => void;
  readonly send: (start: boolean) => Promise<void>;
}

/** Keep the form's values, send them, and say what was refused; `shows` tells whether a field is on the form. */
function useForm(shows: (name: string) => boolean): Form {
  const [values, setValues] = useState<Texts>({});
  const [problems, setProblems] = useState<Texts>({});
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  // One wish, one id: pressing the button again after a lost reply does not make a second session.
  const wish = useRef({ body: "", id: newRequestId() });

  const refused = (error: unknown): void => {
    const fields = error instanceof ApiError ? error.fields : {};
    const names = Object.keys(fields);
    const sentence = error instanceof Error ? error.message : "The session could not be created.";
    setProblems(fields);
    setProblem(names.length > 0 && names.every(shows) ? "The marked fields need attention." : sentence);
    setBusy(false);
  };
  const send = async (start: boolean): Promise<void> => {
    const session = readForm(values);
    const body = JSON.stringify(session);
    if (wish.current.body !== body) wish.current = { body, id: newRequestId() };
    setBusy(true);
    setProblem("");
    setProblems({});
    try {
      const created = (await createSession(session, wish.current.id)).session;
      if (start) await changeSession(created.session_id, "start", `${wish.current.id}-start`);
      navigate(sessionPath(created.session_id));
    } catch (error) {
      refused(error);
    }
  };
  const set = (name: string, value: string): void => {
    setValues((old) => ({ ...old, [name]: value }));
    setProblems((old) => Object.fromEntries(Object.entries(old).filter(([other]) => other !== name)));
  };
  const fill = (texts: Texts): void => setValues((old) => ({ ...old, ...texts }));
  return { values, problems, problem, busy, set, fill, send };
}

export function NewSessionForm({ lanes, onClose }: { readonly lanes: readonly Lane[]; readonly onClose: () => void }): ReactNode {
  const element = useRef<HTMLFormElement>(null);
  const form = useForm((name) => element.current?.elements.namedItem(name) != null);
  const { problems } = form;
  useEffect(() => {
    const first = Object.keys(problems)[0];
    if (first !== undefined) element.current?.querySelector<HTMLElement>(`[name="${CSS.escape(first)}"]`)?.focus();
  }, [problems]);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (!form.busy) void form.send(true);
  };
  const laneFields = lanes.length < 2 ? [] : laneChoices(lanes);
  const { parameters, compute } = readForm(form.values);
  const advice = useAdvice({ parameters, compute });
  return (
    <Dialog label="New session" className="form-dialog" onClose={onClose}>
      <form ref={element} onSubmit={submit} noValidate>
        <div className="form-head">
          <h2>New session</h2>
          <ProfileChoice onChoose={(profile) => form.fill(profileTexts(profile))} />
        </div>
        {form.problem !== "" && <Alert tone="bad">{form.problem}</Alert>}
        <Fields form={form} fields={MAIN} />
        <Fields form={form} fields={MICROSCOPE} legend="Microscope — leave empty what EPU or SerialEM wrote down" />
        <Fields form={form} fields={FILES} legend="Files" />
        <Fields form={form} fields={PROCESSING} legend="Processing" />
        <Fields form={form} fields={[...RESOURCES, ...laneFields]} legend="Where and when jobs run" />
        <AdvicePanel advice={advice} />
        <div className="form-actions">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" disabled={form.busy} onClick={() => void form.send(false)}>
            Create paused
          </button>
          <button type="submit" className="primary" disabled={form.busy}>
            Create and start
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A choice among the saved configuration profiles; nothing when there are none. */
function ProfileChoice({ onChoose }: { readonly onChoose: (profile: Profile) => void }): ReactNode {
  const [profiles, setProfiles] = useState<readonly Profile[]>([]);
  useEffect(() => {
    const ask = async (): Promise<void> => {
      try {
        setProfiles((await getProfiles()).profiles);
      } catch (error) {
        if (!(error instanceof ApiError)) throw error; // an outage is told in the bar
      }
    };
    void ask();
  }, []);
  if (profiles.length === 0) return null;
  return (
    <select
      aria-label="Configuration profile"
      defaultValue=""
      onChange={(event) => {
        const chosen = profiles.find((profile) => profile.name === event.target.value);
        if (chosen !== undefined) onChoose(chosen);
      }}
    >
      <option value="">from a profile…</option>
      {profiles.map((profile) => (
        <option key={profile.name} value={profile.name} title={profile.description}>
          {profile.name}
        </option>
      ))}
    </select>
  );
}

function Fields(props: { readonly form: Form; readonly fields: readonly Field[]; readonly legend?: string }): ReactNode {
  const { form, fields, legend } = props;
  return (
    <fieldset className={legend === undefined ? "fields" : "fields fields-five"}>
      {legend !== undefined && <legend>{legend}</legend>}
      {fields.map((field) => (
        <FieldRow
          key={field.name}
          field={field}
          value={form.values[field.name] ?? ""}
          problem={form.problems[field.name] ?? ""}
          onChange={(value) => form.set(field.name, value)}
        />
      ))}
    </fieldset>
  );
}

function laneChoices(lanes: readonly Lane[]): readonly Field[] {
  const options = [["", "default"], ...lanes.filter((lane) => lane.name !== "default").map((lane) => [lane.name, lane.name])] as [
    string,
    string,
  ][];
  return [
    { name: "preprocessing_lane", label: "Preprocessing lane", kind: "select", options },
    { name: "reconstruction_lane", label: "Reconstruction lane", kind: "select", options },
    { name: "auxiliary_lane", label: "Auxiliary lane", kind: "select", options },
  ];
}

function FieldRow(props: {
  readonly field: Field;
  readonly value: string;
  readonly problem: string;
  readonly onChange: (value: string) => void;
}): ReactNode {
  const { field, value, problem } = props;
  const id = `field-${field.name}`;
  const common = {
    id,
    name: field.name,
    value,
    "aria-invalid": problem !== "",
    "aria-describedby": problem === "" ? undefined : `${id}-problem`,
  };
  return (
    <div className={`field ${field.wide === true ? "field-wide" : ""}`}>
      <label htmlFor={id}>{field.label}</label>
      {field.kind === "select" ? (
        <select {...common} onChange={(event) => props.onChange(event.target.value)}>
          {field.options?.map(([option, name]) => (
            <option key={option} value={option}>
              {name}
            </option>
          ))}
        </select>
      ) : (
        <div className="input">
          <input
            {...common}
            type="text"
            inputMode={field.kind === "number" ? "decimal" : "text"}
            autoComplete="off"
            spellCheck={false}
            placeholder={field.placeholder}
            onChange={(event) => props.onChange(event.target.value)}
          />
          {field.unit !== undefined && <span className="input-unit">{field.unit}</span>}
        </div>
      )}
      <div id={`${id}-problem`} className={problem === "" ? "field-hint" : "field-problem"}>
        {problem || field.hint || "\u00a0"}
      </div>
    </div>
  );
}
