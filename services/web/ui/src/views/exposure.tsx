// One exposure, large: micrograph with picks, spectrum with CTF, motion, times, warnings. Arrow keys go to its neighbours.
import { type ReactNode, useEffect, useState } from "react";
import { curate, getExposure, getMotion, type MotionTrack, spectrumAddress, thumbnailAddress } from "../api";
import { count, known, measure, moment } from "../format";
import { useKeys, useNow } from "../hooks";
import type { Exposure, ExposureResult, ExposureSummary, Session } from "../records";
import type { State } from "../store";
import { Alert, Dialog, Pill } from "./parts";
import { PicksOverlay } from "./picks";
import { TestDialog } from "./test_parameters";

export function ExposureDialog(props: {
  readonly exposure: ExposureSummary;
  readonly session: Session;
  readonly state: State;
  readonly order: readonly ExposureSummary[];
  readonly onOpen: (exposure: ExposureSummary) => void;
  readonly onClose: () => void;
}): ReactNode {
  const { exposure, session, order } = props;
  const [picks, setPicks] = useState(true);
  const [testing, setTesting] = useState(false);
  const detail = useDetail(exposure);
  const now = useNow();
  const place = order.findIndex((one) => one.exposure_id === exposure.exposure_id);
  const go = (step: number): boolean => {
    const next = order[place + step];
    if (place < 0 || next === undefined) return false;
    props.onOpen(next);
    return true;
  };
  useKeys((key) => {
    if (key === "ArrowLeft") return go(-1);
    if (key === "ArrowRight") return go(1);
    if (key !== "p") return false;
    setPicks(!picks);
    return true;
  }, true);
  const result = detail?.result ?? null;
  const diameter = session.parameters?.particle_diameter_angstrom ?? 0;
  return (
    <Dialog label={`Micrograph ${exposure.number}`} className="exposure-dialog" onClose={props.onClose}>
      <header className="exposure-head">
        <h2>Micrograph {exposure.number}</h2>
        <Pill state={exposure.state === "quarantined" ? "failed" : exposure.state} />
        <span className="path ellipsis" title={exposure.relative_path}>
          {exposure.relative_path}
        </span>
        <span className="spacer" />
        {exposure.version !== "" && <Verdict exposure={exposure} session={session} />}
        {exposure.version !== "" && (
          <button type="button" title="Try other parameters on this micrograph alone" onClick={() => setTesting(true)}>
            Test…
          </button>
        )}
        <button type="button" className="toggle" aria-pressed={picks} title="Key p" onClick={() => setPicks(!picks)}>
          Picks
        </button>
        <button type="button" disabled={place <= 0} title="Key ←" aria-label="Newer" onClick={() => go(-1)}>
          ←
        </button>
        <button
          type="button"
          disabled={place < 0 || place + 1 >= order.length}
          title="Key →"
          aria-label="Older"
          onClick={() => go(1)}
        >
          →
        </button>
        <button type="button" title="Key Escape" aria-label="Close" onClick={props.onClose}>
          ✕
        </button>
      </header>
      <div className="exposure-body">
        <div className="exposure-picture">
          {exposure.version !== "" ? (
            <>
              <img src={thumbnailAddress(exposure)} alt={`Micrograph ${exposure.number}`} />
              {picks && <PicksOverlay exposure={exposure} diameterAngstrom={diameter ?? 0} fit="contain" />}
            </>
          ) : (
            <p className="exposure-none">
              {exposure.failure || (exposure.state === "running" ? "Being processed…" : "Waiting for a worker.")}
            </p>
          )}
        </div>
        <aside className="exposure-facts">
          {exposure.failure !== "" && <Alert tone="bad">{exposure.failure}</Alert>}
          {exposure.rejected !== "" && <Alert tone="warn">Its particles are not used. {exposure.rejected}</Alert>}
          {result?.warnings.map((warning) => (
            <Alert key={warning} tone="warn">
              {warning}
            </Alert>
          ))}
          {result !== null && <Spectrum exposure={exposure} result={result} />}
          {result !== null && <Motion exposure={exposure} result={result} />}
          {result !== null && <Particles result={result} />}
          {detail !== null && <Acquisition exposure={detail} now={now} />}
          {result !== null && <Stages seconds={result.stage_seconds} />}
        </aside>
      </div>
      {testing && <TestDialog exposure={exposure} session={session} state={props.state} onClose={() => setTesting(false)} />}
    </Dialog>
  );
}

/** Accept or reject by hand; the pressed word is taken back by pressing it again. */
function Verdict({ exposure, session }: { readonly exposure: ExposureSummary; readonly session: Session }): ReactNode {
  const [problem, setProblem] = useState("");
  const say = async (word: "accept" | "reject"): Promise<void> => {
    try {
      await curate(session.session_id, [exposure.exposure_id], exposure.override === word ? "" : word);
      setProblem("");
    } catch (error) {
      setProblem(error instanceof Error ? error.message : "That did not work.");
    }
  };
  return (
    <span className="verdict" title={problem || "By hand, whatever thresholds say; press again to take it back"}>
      {problem !== "" && <span className="bad-text">{problem}</span>}
      <button type="button" className="toggle" aria-pressed={exposure.override === "accept"} onClick={() => void say("accept")}>
        Accept
      </button>
      <button type="button" className="toggle" aria-pressed={exposure.override === "reject"} onClick={() => void say("reject")}>
        Reject
      </button>
    </span>
  );
}

function useDetail(exposure: ExposureSummary): Exposure | null {
  const [detail, setDetail] = useState<Exposure | null>(null);
  const { exposure_id: id, version, state } = exposure;
  useEffect(() => {
    let gone = false;
    setDetail((old) => (old?.exposure_id === id ? old : null));
    getExposure(id).then(
      (reply) => {
        if (!gone) setDetail(reply.exposure);
      },
      () => undefined, // the picture and the numbers of the list stay; outages are told in the bar
    );
    return () => {
      gone = true;
    };
  }, [id, version, state]);
  return detail;
}

function Facts({ title, rows, children }: {
  readonly title: string;
  readonly rows: readonly (readonly [string, ReactNode])[];
  readonly children?: ReactNode;
}): ReactNode {
  return (
    <section className="facts">
      <h3>{title}</h3>
      {children}
      <dl>
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function Spectrum({ exposure, result }: { readonly exposure: ExposureSummary; readonly result: ExposureResult }): ReactNode {
  const { defocus_u_angstrom: u, defocus_v_angstrom: v } = result;
  const phase = result.phase_shift_degrees;
  const rows: (readonly [string, ReactNode])[] = [
    ["Fit to", measure(result.ctf_fit_resolution_angstrom, 2, "Å")],
    ["Defocus", known(u) && known(v) ? `${((u + v) / 2e4).toFixed(3)} µm` : "–"],
    ["Astigmatism", known(u) && known(v) ? `${Math.abs(u - v).toFixed(0)} Å at ${measure(result.defocus_angle_degrees, 0)}°` : "–"],
    ["Score", measure(result.ctf_score, 3)],
  ];
  if (known(phase) && phase !== 0) rows.push(["Phase shift", `${phase.toFixed(1)}°`]);
  return (
    <Facts title="CTF" rows={rows}>
      {result.spectrum !== "" && (
        <img className="spectrum" src={spectrumAddress(exposure)} alt="Power spectrum" width="118" height="118" />
      )}
    </Facts>
  );
}

function Motion({ exposure, result }: { readonly exposure: ExposureSummary; readonly result: ExposureResult }): ReactNode {
  const [track, setTrack] = useState<MotionTrack | null>(null);
  const { exposure_id: id, version } = exposure;
  useEffect(() => {
    let gone = false;
    setTrack(null);
    getMotion(id, version).then(
      (found) => {
        if (!gone) setTrack(found);
      },
      () => undefined, // the numbers beside it say the same
    );
    return () => {
      gone = true;
    };
  }, [id, version]);
  const rows: (readonly [string, ReactNode])[] = [
    ["Total", measure(result.motion_total_angstrom, 1, "Å")],
    ["Early", measure(result.motion_early_angstrom, 1, "Å")],
    ["Late", measure(result.motion_late_angstrom, 1, "Å")],
  ];
  if (!result.motion_converged) rows.push(["Alignment", <span className="bad-text">failed: summed as it is</span>]);
  return (
    <Facts title="Motion" rows={rows}>
      <Track track={track} />
    </Facts>
  );
}

/** Return the track's path in a box of `size` with a margin, and the width of the box in Å; null with fewer than two points. */
export function trackPath(track: MotionTrack, size: number): { readonly path: string; readonly angstrom: number } | null {
  const points = track.x_angstrom.flatMap((x, place) => {
    const y = track.y_angstrom[place];
    return known(x) && known(y) ? [[x, y] as const] : [];
  });
  if (points.length < 2) return null;
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  const range = (values: readonly number[]): number => Math.max(...values) - Math.min(...values);
  const extent = Math.max(range(xs), range(ys), 1) * 1.25;
  const centre = (values: readonly number[]): number => (Math.max(...values) + Math.min(...values)) / 2;
  const [cx, cy] = [centre(xs), centre(ys)];
  const at = (value: number, middle: number): string => (((value - middle) / extent + 0.5) * size).toFixed(1);
  return { path: `M${points.map(([x, y]) => `${at(x, cx)},${at(y, cy)}`).join("L")}`, angstrom: extent };
}

function Track({ track }: { readonly track: MotionTrack | null }): ReactNode {
  const size = 118;
  const drawn = track === null ? null : trackPath(track, size);
  const start = drawn?.path.slice(1).split("L")[0]?.split(",") ?? [];
  return (
    <svg className="track" width={size} height={size} viewBox={`0 0 ${size} ${size}`} role="img" aria-label="Motion track">
      {drawn !== null && (
        <>
          <path d={drawn.path} className="track-line" />
          <circle cx={start[0]} cy={start[1]} r="3.5" className="track-start" />
          <text x={size - 6} y={size - 7} textAnchor="end">
            {drawn.angstrom.toFixed(drawn.angstrom < 10 ? 1 : 0)} Å wide
          </text>
        </>
      )}
    </svg>
  );
}

function Particles({ result }: { readonly result: ExposureResult }): ReactNode {
  const box =
    result.particle_box_px > 0
      ? `${result.particle_box_px} px of ${measure(result.particle_pixel_size_angstrom, 2, "Å")}`
      : "–";
  return (
    <Facts
      title="Particles"
      rows={[
        ["Picked", count(result.pick_count)],
        ["Extracted", count(result.particle_count)],
        ["Box", box],
      ]}
    />
  );
}

function Acquisition({ exposure, now }: { readonly exposure: Exposure; readonly now: number }): ReactNode {
  const { result, file, metadata } = exposure;
  const rows: (readonly [string, ReactNode])[] = [];
  if (file !== null) rows.push(["Movie", `${file.width_px} × ${file.height_px}, ${count(file.frame_count)} frames`]);
  if (result !== null) {
    rows.push(["Pixel size", measure(result.pixel_size_angstrom, 3, "Å")]);
    rows.push(["Optics", `${measure(result.voltage_kv, 0, "kV")}, Cs ${measure(result.spherical_aberration_mm, 1, "mm")}`]);
    rows.push(["Dose", measure(result.dose_per_frame_e_per_angstrom2, 2, "e/Å² per frame")]);
  }
  if (metadata?.grid_square) rows.push(["Grid square", metadata.grid_square]);
  if (metadata?.foil_hole) rows.push(["Foil hole", metadata.foil_hole]);
  const finished = exposure.finish_time === null ? "" : `, finished ${moment(exposure.finish_time, now)}`;
  rows.push(["Found", `${moment(exposure.register_time, now)}${finished}`]);
  if (exposure.attempts > 1) rows.push(["Attempts", count(exposure.attempts)]);
  return <Facts title="Acquisition" rows={rows} />;
}

function Stages({ seconds }: { readonly seconds: Readonly<Record<string, number | null>> }): ReactNode {
  const stages = Object.entries(seconds).filter((entry): entry is [string, number] => known(entry[1]));
  if (stages.length === 0) return null;
  const total = stages.reduce((sum, [, value]) => sum + value, 0);
  const longest = Math.max(...stages.map(([, value]) => value));
  return (
    <section className="facts">
      <h3>
        Time <span className="dim">{total.toFixed(1)} s</span>
      </h3>
      <div className="stages">
        {stages
          .sort((a, b) => b[1] - a[1])
          .map(([name, value]) => (
            <div key={name} className="stage">
              <span>{name.replaceAll("_", " ")}</span>
              <span className="stage-bar">
                <span style={{ width: `${(100 * value) / longest}%` }} />
              </span>
              <span className="number">{value.toFixed(1)} s</span>
            </div>
          ))}
      </div>
    </section>
  );
}
