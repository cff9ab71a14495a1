// Numbers, times and names as people read them. Missing numbers are a dash, never NaN.
const DASH = "–";
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export type Maybe = number | null | undefined;

/** Return whether a number can be shown. */
export function known(value: Maybe): value is number {
  return value !== null && value !== undefined && Number.isFinite(value);
}

/** 12345 → "12,345". */
export function count(value: Maybe): string {
  return known(value) ? whole.format(value) : DASH;
}

/** 1234567 → "1.23 M", 12345 → "12.3 k", 999 → "999". */
export function shortCount(value: Maybe): string {
  if (!known(value)) return DASH;
  if (value >= 999_500) return `${(value / 1e6).toPrecision(3)} M`;
  if (value >= 10_000) return `${(value / 1e3).toPrecision(3)} k`;
  return whole.format(value);
}

/** A number with fixed decimals and its unit. */
export function measure(value: Maybe, decimals: number, unit = ""): string {
  return known(value) ? `${value.toFixed(decimals)}${unit === "" ? "" : ` ${unit}`}` : DASH;
}

/** Seconds as the two largest units: "42 s", "3 min 05 s", "2 h 07 min", "3 d 4 h". */
export function duration(seconds: Maybe): string {
  if (!known(seconds)) return DASH;
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min ${pad(total % 60)} s`;
  if (total < 86_400) return `${Math.floor(total / 3600)} h ${pad(Math.floor((total % 3600) / 60))} min`;
  return `${Math.floor(total / 86_400)} d ${Math.floor((total % 86_400) / 3600)} h`;
}

/** Seconds as the largest unit alone: "42 s", "3 min", "2 h". */
export function roughDuration(seconds: Maybe): string {
  if (!known(seconds)) return DASH;
  const total = Math.max(0, Math.round(seconds));
  if (total < 60) return `${total} s`;
  if (total < 3600) return `${Math.floor(total / 60)} min`;
  if (total < 172_800) return `${Math.floor(total / 3600)} h`;
  return `${Math.floor(total / 86_400)} d`;
}

/** A moment as "14:05" today, else "24 Nov 14:05". */
export function moment(time: Maybe, now: number): string {
  if (!known(time)) return DASH;
  const date = new Date(time * 1000);
  const clock = `${pad(date.getHours())}:${pad(date.getMinutes())}`;
  if (date.toDateString() === new Date(now * 1000).toDateString()) return clock;
  return `${date.getDate()} ${date.toLocaleString("en-GB", { month: "short" })} ${clock}`;
}

/** MiB as "80 GB" would be wrong: binary gigabytes, "79.1 GiB". */
export function memory(mebibytes: Maybe): string {
  return known(mebibytes) && mebibytes > 0 ? `${(mebibytes / 1024).toFixed(mebibytes < 10_240 ? 1 : 0)} GiB` : DASH;
}

const JOB_TYPES: Readonly<Record<string, string>> = { preprocess: "Preprocessing", class2d_streaming: "Streaming 2D", refine3d_streaming: "Streaming 3D" };

/** A job type as people call it. */
export function jobType(name: string): string {
  return JOB_TYPES[name] ?? capital(name.replaceAll("_", " "));
}

/** A state as a word. */
export function capital(word: string): string {
  return word.slice(0, 1).toUpperCase() + word.slice(1);
}

function pad(value: number): string {
  return value.toString().padStart(2, "0");
}
