// The newest volume: resolution, slices and projections, FSC, resolution against particles.
import { type ReactNode } from "react";
import { volumeSheetAddress } from "../api";
import { count, known, measure, shortCount } from "../format";
import type { Volume } from "../records";

const THRESHOLD = 0.143;

export function VolumePanel({ volume }: { readonly volume: Volume }): ReactNode {
  const refined = volume.kind === "refinement";
  return (
    <div className="volume panel">
      <div className="panel-head">
        <h2>{refined ? "3D refinement" : "Ab-initio volume"}</h2>
        <span className="spacer" />
        <span className="dim">{volume.final ? "final" : `revision ${volume.revision}`}</span>
      </div>
      <div className="classes-facts">
        {refined && <strong>{measure(volume.resolution_angstrom, 1, "Å")}</strong>}
        <span>{count(volume.particle_count)} particles</span>
        <span>{volume.symmetry}</span>
        {known(volume.b_factor_angstrom2) && <span title="Of the Guinier plot">B {measure(volume.b_factor_angstrom2, 0, "Å²")}</span>}
      </div>
      <div className="volume-body">
        {refined && !volume.supported && (
          <p className="warn-text">The half maps do not yet agree beyond the start volume: this may be no more than where it began.</p>
        )}
        {volume.angular_spread?.preferred === true && (
          <p className="warn-text">Preferred orientation: some directions have few particles.</p>
        )}
        {volume.sheet !== "" && (
          <img className="volume-sheet" src={volumeSheetAddress(volume)} alt="Central slices above, projections below, along z, y and x" />
        )}
        {volume.fsc !== null && <FscCurve volume={volume} />}
        {volume.history.length > 1 && <ResolutionCurve volume={volume} />}
      </div>
    </div>
  );
}

type Point = readonly [x: number, y: number];

/** Return the points of a line in a box of 100 by 40, y upwards from `low` to `high`. */
export function linePoints(points: readonly Point[], low: number, high: number): string {
  const first = points[0]?.[0] ?? 0;
  const width = (points[points.length - 1]?.[0] ?? 1) - first || 1;
  const height = high - low || 1;
  return points
    .map(([x, y]) => `${((100 * (x - first)) / width).toFixed(2)},${(40 - (40 * (y - low)) / height).toFixed(2)}`)
    .join(" ");
}

function FscCurve({ volume }: { readonly volume: Volume }): ReactNode {
  const curve = (values: readonly (number | null)[] | undefined): string =>
    linePoints((values ?? []).map((value, shell) => [shell, Math.max(value ?? 0, 0)] as const), 0, 1);
  const threshold = 40 * (1 - THRESHOLD);
  const nyquist = known(volume.pixel_size_angstrom) ? 2 * volume.pixel_size_angstrom : null;
  return (
    <figure className="curve">
      <figcaption>
        <span className="plot-name">FSC</span>
        <span className="dim">corrected; grey: unmasked; line at {THRESHOLD}</span>
      </figcaption>
      <svg viewBox="0 0 100 40" preserveAspectRatio="none" height="110" role="img" aria-label="Fourier shell correlation">
        <line className="curve-mark" x1="0" x2="100" y1={threshold} y2={threshold} strokeDasharray="3 3" />
        <polyline className="curve-line dim-line" points={curve(volume.fsc?.unmasked)} />
        <polyline className="curve-line" points={curve(volume.fsc?.corrected)} />
      </svg>
      <div className="curve-ends">
        <span>0</span>
        <span>{measure(nyquist, 1, "Å")}</span>
      </div>
    </figure>
  );
}

function ResolutionCurve({ volume }: { readonly volume: Volume }): ReactNode {
  const points = volume.history.map(
    (one) => [Math.log(Math.max(one.particle_count, 1)), (one.resolution_angstrom ?? Infinity) ** -2] as const,
  );
  const heights = points.map(([, height]) => height);
  const [first, last] = [volume.history[0], volume.history[volume.history.length - 1]];
  return (
    <figure className="curve">
      <figcaption>
        <span className="plot-name">Resolution against particles</span>
        {known(volume.trend_b_factor_angstrom2) && (
          <span className="dim" title="Of everything that limits the run (Rosenthal and Henderson 2003)">
            B {measure(volume.trend_b_factor_angstrom2, 0, "Å²")}
          </span>
        )}
      </figcaption>
      <svg viewBox="0 0 100 40" preserveAspectRatio="none" height="80" role="img" aria-label="Resolution against particles">
        <polyline className="curve-line" points={linePoints(points, Math.min(...heights), Math.max(...heights))} />
      </svg>
      <div className="curve-ends">
        <span>
          {shortCount(first?.particle_count ?? 0)}: {measure(first?.resolution_angstrom ?? null, 1, "Å")}
        </span>
        <span>
          {shortCount(last?.particle_count ?? 0)}: {measure(last?.resolution_angstrom ?? null, 1, "Å")}
        </span>
      </div>
    </figure>
  );
}
