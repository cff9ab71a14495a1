// The fields of a session's parameters, as the forms show them.

export interface Field {
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

export const MAIN: readonly Field[] = [
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

export const MICROSCOPE: readonly Field[] = [
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
  { name: "phase_shift_min_degrees", label: "Phase shift from", kind: "number", unit: "°", placeholder: "no phase plate" },
  { name: "phase_shift_max_degrees", label: "Phase shift to", kind: "number", unit: "°", placeholder: "same" },
];

export const FILES: readonly Field[] = [
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

/** What the pickers search for, and which of what they find become picks. */
export const PICKING: readonly Field[] = [
  {
    name: "picker",
    label: "Picker",
    kind: "select",
    options: [
      ["", "blob"],
      ["template", "template"],
    ],
  },
  { name: "picker_shapes", label: "Blob shapes", kind: "text", placeholder: "circle, ring", hint: "circle, ellipse, ring" },
  {
    name: "picker_templates_path",
    label: "Templates",
    kind: "text",
    placeholder: "of the template picker",
    hint: "Class averages (.mrcs, .star) or a volume (.mrc), as the machine that runs Frazil sees them",
  },
  { name: "picker_min_distance_diameters", label: "Least distance", kind: "number", unit: "⌀", placeholder: "picker's own" },
  { name: "picker_max_picks", label: "Most picks", kind: "number", placeholder: "4000" },
  { name: "picker_score_min", label: "Least NCC", kind: "number", placeholder: "automatic", hint: "Normalised cross-correlation, -1 to 1" },
  { name: "picker_power_min", label: "Least power", kind: "number", unit: "σ", placeholder: "none" },
  { name: "picker_power_max", label: "Greatest power", kind: "number", unit: "σ", placeholder: "none" },
  { name: "picker_lowpass_angstrom", label: "Templates' low-pass", kind: "number", unit: "Å", placeholder: "20" },
  { name: "picker_angular_step_degrees", label: "Angular step", kind: "number", unit: "°", placeholder: "10" },
];

export const PROCESSING: readonly Field[] = [
  { name: "box_size_px", label: "Box", kind: "number", unit: "px", placeholder: "advised" },
  { name: "output_box_px", label: "Box after cropping", kind: "number", unit: "px", placeholder: "advised" },
  { name: "class_count", label: "2D classes", kind: "number", placeholder: "50" },
  { name: "class_mask_diameter_angstrom", label: "2D mask", kind: "number", unit: "Å", placeholder: "1.1 diameters" },
  { name: "class_batch_particles", label: "2D batch", kind: "number", placeholder: "200" },
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

const NUMBERED = new Set(["gain_rotate", "eer_upsampling", "load_crop"]);
const LISTS = new Set(["picker_shapes"]);

/** Tell whether a field's value is a number, whatever it is chosen with. */
export function isNumber(field: Field): boolean {
  return field.kind === "number" || NUMBERED.has(field.name);
}

/** Return the value that a field's text means; a text that is no number stays as it is, for the server to refuse. */
export function readText(field: Field, text: string): string | number | readonly string[] {
  const trimmed = text.trim();
  if (LISTS.has(field.name)) return trimmed.split(",").map((part) => part.trim()).filter((part) => part !== "");
  const number = Number(trimmed.replace(",", "."));
  return isNumber(field) && Number.isFinite(number) ? number : trimmed;
}

const ZERO_COUNTS = new Set(["picker_score_min", "picker_power_min", "picker_power_max", "amplitude_contrast"]);

/** Return the text of a field for the value of a record; "" for what is not set. */
export function showValue(field: Field, value: unknown): string {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "string") return value === "unspecified" ? "" : value;
  return typeof value === "number" && (value !== 0 || ZERO_COUNTS.has(field.name)) ? String(value) : "";
}
