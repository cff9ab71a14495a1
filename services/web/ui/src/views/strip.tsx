// The strip of micrographs, newest at the left; only those in sight are in the document.
import { type KeyboardEvent, memo, type ReactNode, useEffect, useRef, useState } from "react";
import { thumbnailAddress } from "../api";
import { count, measure } from "../format";
import { useSize } from "../hooks";
import type { ExposureSummary, Session } from "../records";
import type { Counts } from "../selectors";
import { Choice } from "./parts";
import { PicksOverlay } from "./picks";

const TILE_PX = 158;
const OVERSCAN = 3;

export function Strip(props: {
  readonly exposures: readonly ExposureSummary[];
  readonly session: Session;
  readonly counts: Counts;
  readonly failedOnly: boolean;
  readonly onFailedOnly: (failedOnly: boolean) => void;
  readonly onOpen: (exposure: ExposureSummary) => void;
}): ReactNode {
  const { exposures, session, counts, failedOnly } = props;
  const [frame, size] = useSize<HTMLDivElement>();
  const [left, setLeft] = useState(0);
  const [picks, setPicks] = useState(true);
  const first = Math.max(0, Math.floor(left / TILE_PX) - OVERSCAN);
  const last = Math.min(exposures.length, Math.ceil((left + size.width) / TILE_PX) + OVERSCAN);
  const diameter = session.parameters?.particle_diameter_angstrom ?? 0;
  return (
    <div className="strip panel">
      <div className="panel-head">
        <h2>Micrographs</h2>
        <span className="dim">
          newest first{counts.ready > 0 && ` · ${count(counts.ready)} more queued`}
        </span>
        <span className="spacer" />
        <Choice
          label="Which micrographs"
          value={failedOnly ? "failed" : "all"}
          options={[
            ["all", "All"],
            ["failed", `Failed ${counts.quarantined === 0 ? "" : count(counts.quarantined)}`.trim()],
          ]}
          onChange={(value) => props.onFailedOnly(value === "failed")}
        />
        <button type="button" className="toggle" aria-pressed={picks} onClick={() => setPicks(!picks)}>
          Picks
        </button>
      </div>
      <div
        ref={frame}
        className="strip-frame"
        onScroll={(event) => setLeft(event.currentTarget.scrollLeft)}
        onKeyDown={moveFocus}
      >
        {exposures.length === 0 ? (
          <StripEmpty session={session} counts={counts} failedOnly={failedOnly} />
        ) : (
          <div className="strip-track" style={{ width: exposures.length * TILE_PX }}>
            {exposures.slice(first, last).map((exposure, place) => (
              <Tile
                key={exposure.exposure_id}
                exposure={exposure}
                left={(first + place) * TILE_PX}
                picks={picks}
                diameterAngstrom={diameter ?? 0}
                onOpen={props.onOpen}
              />
            ))}
          </div>
        )}
      </div>
    </div>
  );
}

/** Arrow keys go from tile to tile. */
function moveFocus(event: KeyboardEvent<HTMLDivElement>): void {
  const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
  const tile = (event.target as HTMLElement).closest<HTMLElement>(".tile");
  if (step === 0 || tile === null) return;
  const tiles = [...event.currentTarget.querySelectorAll<HTMLElement>(".tile")].sort((a, b) => a.offsetLeft - b.offsetLeft);
  const next = tiles[tiles.indexOf(tile) + step];
  next?.focus();
  next?.scrollIntoView({ block: "nearest", inline: "nearest" });
  event.preventDefault();
}

const Tile = memo(function Tile(props: {
  readonly exposure: ExposureSummary;
  readonly left: number;
  readonly picks: boolean;
  readonly diameterAngstrom: number;
  readonly onOpen: (exposure: ExposureSummary) => void;
}): ReactNode {
  const { exposure } = props;
  const failed = exposure.state === "quarantined";
  const done = exposure.version !== "" && !failed; // while it is redone, what it was is shown
  const rejected = done && exposure.rejected !== "";
  return (
    <button
      type="button"
      className={`tile tile-${exposure.state} ${rejected ? "tile-rejected" : ""}`}
      style={{ transform: `translateX(${props.left}px)` }}
      title={[exposure.relative_path, exposure.failure, exposure.rejected].filter((line) => line !== "").join("\n")}
      onClick={() => props.onOpen(exposure)}
    >
      <span className="tile-picture">
        {done && <Thumbnail exposure={exposure} />}
        {done && props.picks && <PicksOverlay exposure={exposure} diameterAngstrom={props.diameterAngstrom} fit="cover" />}
        {failed && <span className="tile-failure">{exposure.failure}</span>}
        {exposure.state === "running" && <span className="tile-wait">processing</span>}
      </span>
      <span className="tile-line">
        <span className="tile-number">{exposure.number}</span>
        {done && (
          <>
            <span className={(exposure.warning_count ?? 0) > 0 ? "warn-text" : ""}>
              {measure(exposure.ctf_fit_resolution_angstrom, 1, "Å")}
            </span>
            {rejected ? <span className="bad-text">rejected</span> : <span className="dim">{count(exposure.pick_count)}</span>}
          </>
        )}
        {failed && <span className="bad-text">failed</span>}
      </span>
    </button>
  );
});

function Thumbnail({ exposure }: { readonly exposure: ExposureSummary }): ReactNode {
  const [shown, setShown] = useState(false);
  const image = useRef<HTMLImageElement>(null);
  const address = thumbnailAddress(exposure);
  useEffect(() => {
    if (image.current?.complete === true) setShown(true); // from the cache, before anybody listened
  }, [address]);
  return (
    <img
      ref={image}
      src={address}
      alt={`Micrograph ${exposure.number}`}
      draggable={false}
      className={shown ? "shown" : ""}
      onLoad={() => setShown(true)}
    />
  );
}

function StripEmpty(props: { readonly session: Session; readonly counts: Counts; readonly failedOnly: boolean }): ReactNode {
  const { session, counts, failedOnly } = props;
  return <div className="strip-empty">{emptySentence(session, counts, failedOnly)}</div>;
}

function emptySentence(session: Session, counts: Counts, failedOnly: boolean): string {
  const folder = session.parameters?.movie_folder ?? "its folder";
  if (failedOnly) return "No movie has failed.";
  if (counts.ready > 0) return `${count(counts.ready)} movies wait for a worker. The first thumbnail appears when one is done.`;
  if (session.state === "paused") return `Press Start: Frazil then watches ${folder} for movies.`;
  const settling = session.scan?.files_settling ?? 0;
  if (settling > 0) return `${settling} movies are still being written to ${folder}.`;
  return `No movies in ${folder} yet. They appear here within seconds of being written.`;
}
