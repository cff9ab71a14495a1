// One field of a form: label, input, hint, and the sentence about what is wrong with it.
import type { ReactNode } from "react";
import type { Field } from "./session_fields";

export function FieldRow(props: {
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
