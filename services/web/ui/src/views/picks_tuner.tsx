// Thresholds of picks, tried on one micrograph: nothing is searched again, so circles follow the sliders at once.
import { type ReactNode, useEffect, useMemo, useState } from "react";
import { type Candidates, getCandidates, type Picks, thumbnailAddress } from "../api";
import { count, known } from "../format";
import type { ExposureSummary, Session } from "../records";
import { Circles } from "./picks";
import { type Point, Scatter } from "./scatter";

const SLIDERS = [
  { name: "picker_score_min", label: "Least NCC", of: "score", end: "minimum" },
  { name: "picker_power_min", label: "Least power", of: "power", end: "minimum" },
  { name: "picker_power_max", label: "Greatest power", of: "power", end: "maximum" },
] as const;

export function PicksTuner(props: {
  readonly session: Session;
  readonly exposures: readonly ExposureSummary[];
  readonly value: (name: string) => string;
  readonly onChange: (name: string, text: string) => void;
}): ReactNode {
  const { session, exposures, value, onChange } = props;
  const done = useMemo(() => exposures.filter((one) => one.version !== ""), [exposures]);
  const [chosen, setChosen] = useState("");
  const exposure = done.find((one) => one.exposure_id === chosen) ?? done.at(-1);
  const candidates = useCandidates(exposure);
  const limits = {
    score: number(value("picker_score_min")),
    powerMin: number(value("picker_power_min")),
    powerMax: number(value("picker_power_max")),
    most: number(value("picker_max_picks")) || 4000,
  };
  const kept = candidates === null ? [] : keptOf(candidates, limits);
  if (exposure === undefined) return <p className="curation-none">No micrograph is processed yet.</p>;
  const points: readonly Point[] =
    candidates?.score.flatMap((score, place) => {
      const power = candidates.power[place];
      return known(score) && known(power) ? [{ key: String(place), x: power, y: score, used: kept[place] === true }] : [];
    }) ?? [];
  const automatic = candidates?.score_min ?? null;
  const diameter = session.parameters?.particle_diameter_angstrom ?? 0;
  return (
    <div className="tuner">
      <div className="tuner-picture">
        <img src={thumbnailAddress(exposure)} alt={`Micrograph ${exposure.number}`} />
        {candidates !== null && (
          <>
            <Circles picks={placesOf(candidates, kept, false)} diameterAngstrom={diameter} fit="contain" faint />
            <Circles picks={placesOf(candidates, kept, true)} diameterAngstrom={diameter} fit="contain" />
          </>
        )}
      </div>
      <div className="tuner-side">
        <label className="tuner-choice">
          Micrograph
          <select value={exposure.exposure_id} onChange={(event) => setChosen(event.target.value)}>
            {done.map((one) => (
              <option key={one.exposure_id} value={one.exposure_id}>
                {one.number}
              </option>
            ))}
          </select>
          <span className="dim">
            <b>{count(kept.filter(Boolean).length)}</b> picks of {count(points.length)} candidates
          </span>
        </label>
        <Scatter
          label="Score (NCC) over power"
          points={points}
          interval={{ minimum: limits.score ?? automatic, maximum: null }}
          onInterval={(interval) => onChange("picker_score_min", interval.minimum === null ? "" : String(interval.minimum))}
          xTick={(tick) => String(Number(tick.toPrecision(3)))}
        />
        <div className="tuner-axis dim">NCC upwards, power score to the right; drag the line, or:</div>
        {SLIDERS.map((slider) => (
          <Slider
            key={slider.name}
            label={slider.label}
            range={rangeOf(candidates?.[slider.of] ?? [])}
            text={value(slider.name)}
            fallback={slider.name === "picker_score_min" ? automatic : null}
            end={slider.end}
            onChange={(text) => onChange(slider.name, text)}
          />
        ))}
      </div>
    </div>
  );
}

function Slider(props: {
  readonly label: string;
  readonly range: readonly [number, number];
  readonly text: string;
  /** What holds where nothing is set; null: no limit. */
  readonly fallback: number | null;
  readonly end: "minimum" | "maximum";
  readonly onChange: (text: string) => void;
}): ReactNode {
  const [low, high] = props.range;
  const set = number(props.text);
  const shown = set ?? props.fallback ?? (props.end === "minimum" ? low : high);
  return (
    <label className="tuner-slider">
      <span>{props.label}</span>
      <input
        type="range"
        min={low}
        max={high}
        step={(high - low) / 200 || 0.01}
        value={shown}
        onChange={(event) => props.onChange(String(Number(Number(event.target.value).toPrecision(3))))}
      />
      <span className="number">{set === null ? (props.fallback === null ? "none" : "automatic") : props.text}</span>
      <button type="button" disabled={props.text === ""} title="Leave it to the picker" onClick={() => props.onChange("")}>
        ✕
      </button>
    </label>
  );
}

interface Limits {
  readonly score: number | null;
  readonly powerMin: number | null;
  readonly powerMax: number | null;
  readonly most: number;
}

/** Tell which candidates become picks, as the preprocessing worker will say. */
export function keptOf(candidates: Pick<Candidates, "score" | "power" | "score_min">, limits: Limits): readonly boolean[] {
  const least = limits.score ?? candidates.score_min ?? Infinity;
  let left = limits.most;
  return candidates.score.map((score, place) => {
    const power = candidates.power[place];
    const keeps =
      known(score) &&
      known(power) &&
      score >= least - 5e-5 && // they come rounded to four digits
      power >= (limits.powerMin ?? -Infinity) &&
      power <= (limits.powerMax ?? Infinity);
    if (keeps) left -= 1;
    return keeps && left >= 0;
  });
}

function placesOf(candidates: Candidates, kept: readonly boolean[], wanted: boolean): Picks {
  const chosen = <T,>(values: readonly T[]): readonly T[] => values.filter((_, place) => kept[place] === wanted);
  const { width_px, height_px, pixel_size_angstrom } = candidates;
  return {
    width_px,
    height_px,
    pixel_size_angstrom,
    x: chosen(candidates.x_px),
    y: chosen(candidates.y_px),
    score: chosen(candidates.score),
  };
}

function rangeOf(values: readonly (number | null)[]): readonly [number, number] {
  const found = values.filter(known);
  return found.length === 0 ? [0, 1] : [Math.min(...found), Math.max(...found)];
}

function number(text: string): number | null {
  const value = Number(text.replace(",", "."));
  return text.trim() === "" || !Number.isFinite(value) ? null : value;
}

function useCandidates(exposure: ExposureSummary | undefined): Candidates | null {
  const [found, setFound] = useState<Candidates | null>(null);
  const { exposure_id: id = "", version = "" } = exposure ?? {};
  useEffect(() => {
    let gone = false;
    setFound(null);
    if (id === "") return;
    getCandidates(id, version).then(
      (candidates) => {
        if (!gone) setFound(candidates);
      },
      () => undefined, // processed before candidates were kept: there is nothing to tune
    );
    return () => {
      gone = true;
    };
  }, [id, version]);
  return found;
}
