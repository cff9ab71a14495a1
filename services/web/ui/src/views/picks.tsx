// Circles around picked particles, on a canvas that lies over a micrograph.
import { type ReactNode, useEffect, useRef, useState } from "react";
import { getPicks, type Picks } from "../api";
import { known } from "../format";
import { useColourScheme, useSize } from "../hooks";
import type { ExposureSummary } from "../records";

/** Where a micrograph of some size lies in a box: scaled to cover it or to fit into it, centred. */
export function placeInBox(
  picture: { readonly width: number; readonly height: number },
  box: { readonly width: number; readonly height: number },
  fit: "cover" | "contain",
): { readonly scale: number; readonly left: number; readonly top: number } {
  const ratios = [box.width / picture.width, box.height / picture.height] as const;
  const scale = fit === "cover" ? Math.max(...ratios) : Math.min(...ratios);
  return { scale, left: (box.width - picture.width * scale) / 2, top: (box.height - picture.height * scale) / 2 };
}

export function PicksOverlay(props: {
  readonly exposure: Pick<ExposureSummary, "exposure_id" | "version">;
  readonly diameterAngstrom: number;
  readonly fit: "cover" | "contain";
}): ReactNode {
  const { exposure, diameterAngstrom, fit } = props;
  return <Circles picks={usePicks(exposure.exposure_id, exposure.version)} diameterAngstrom={diameterAngstrom} fit={fit} />;
}

/** Circles around places in px of the full micrograph; `faint` ones are only hinted at. */
export function Circles(props: {
  readonly picks: Picks | null;
  readonly diameterAngstrom: number;
  readonly fit: "cover" | "contain";
  readonly faint?: boolean;
}): ReactNode {
  const { picks, diameterAngstrom, fit, faint = false } = props;
  const [frame, size] = useSize<HTMLSpanElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = useColourScheme();
  useEffect(() => {
    if (canvas.current !== null && picks !== null) draw(canvas.current, picks, size, diameterAngstrom, fit);
  }, [picks, size, diameterAngstrom, fit, colours]);
  return (
    <span ref={frame} className={faint ? "picks picks-faint" : "picks"}>
      <canvas ref={canvas} />
    </span>
  );
}

function usePicks(exposureId: string, version: string): Picks | null {
  const [picks, setPicks] = useState<Picks | null>(null);
  useEffect(() => {
    let gone = false;
    setPicks(null);
    getPicks(exposureId, version).then(
      (found) => {
        if (!gone) setPicks(found);
      },
      () => undefined, // a micrograph without circles is still worth seeing; outages are told elsewhere
    );
    return () => {
      gone = true;
    };
  }, [exposureId, version]);
  return picks;
}

function draw(
  canvas: HTMLCanvasElement,
  picks: Picks,
  size: { readonly width: number; readonly height: number },
  diameterAngstrom: number,
  fit: "cover" | "contain",
): void {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(size.width * ratio);
  canvas.height = Math.round(size.height * ratio);
  const pen = canvas.getContext("2d");
  if (pen === null || picks.width_px <= 0 || picks.height_px <= 0) return;
  const place = placeInBox({ width: picks.width_px, height: picks.height_px }, size, fit);
  const diameterPx = picks.pixel_size_angstrom > 0 ? diameterAngstrom / picks.pixel_size_angstrom : 0;
  const radius = Math.max(2.5, (diameterPx * place.scale) / 2);
  pen.scale(ratio, ratio);
  pen.beginPath();
  pen.rect(place.left, place.top, picks.width_px * place.scale, picks.height_px * place.scale);
  pen.clip();
  pen.strokeStyle = getComputedStyle(canvas).getPropertyValue("--pick");
  pen.lineWidth = size.width > 400 ? 1.5 : 0.9;
  pen.beginPath();
  picks.x.forEach((x, index) => {
    const y = picks.y[index];
    if (!known(x) || !known(y)) return;
    const left = place.left + x * place.scale;
    const top = place.top + y * place.scale;
    pen.moveTo(left + radius, top);
    pen.arc(left, top, radius, 0, 2 * Math.PI);
  });
  pen.stroke();
}
