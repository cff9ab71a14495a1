// The form for a new session. The server judges the fields; its sentences are shown where they belong.
import { type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";
import { ApiError, changeSession, createSession, getProfiles, newRequestId, type NewSession, type Values } from "../api";
import type { Lane, Profile } from "../records";
import { navigate, sessionPath } from "../router";
import { AdvicePanel, useAdvice } from "./advice";
import { FieldRow } from "./field_row";
import { Alert, Dialog } from "./parts";
import { type Field, FILES, MAIN, MICROSCOPE, PICKING, PROCESSING, readText, showValue } from "./session_fields";

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

const FIELDS = [...MAIN, ...MICROSCOPE, ...FILES, ...PICKING, ...PROCESSING, ...RESOURCES];

type Texts = Readonly<Record<string, string>>;

/** Turn the form's texts into what the service expects; a text that is no number is sent as it is, for the server to refuse. */
export function readForm(values: Texts): NewSession {
  const parameters: Record<string, string | number | readonly string[]> = {};
  const compute: Record<string, string | number | readonly string[] | Values> = {};
  for (const [name, text] of Object.entries(values)) {
    if (name === "name" || text.trim() === "") continue;
    const field = FIELDS.find((one) => one.name === name);
    const value = field === undefined ? text.trim() : readText(field, text);
    if (name === "alternation") compute[name] = { enabled: true };
    else (COMPUTE.has(name) ? compute : parameters)[name] = value;
  }
  return { name: (values["name"] ?? "").trim(), parameters, compute };
}

/** Return the form's texts for a profile: whatever the form shows and the profile sets. */
export function profileTexts(profile: Profile): Texts {
  const texts: Record<string, string> = {};
  const set = { ...profile.parameters, ...profile.compute } as Readonly<Record<string, unknown>>;
  for (const field of FIELDS) {
    const text = showValue(field, set[field.name]);
    if (text !== "") texts[field.name] = text;
  }
  for (const lane of LANES) if (typeof set[lane] === "string" && set[lane] !== "default") texts[lane] = set[lane] as string;
  if (profile.compute?.alternation?.enabled === true) texts["alternation"] = "on";
  return texts;
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
        <Fields form={form} fields={PICKING} legend="Picking" />
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

