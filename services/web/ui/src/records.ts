// Made by generate_types.py from protos/; never edited. Times are seconds since 1970; null: not set, or no number.

export interface Alternation {
  readonly enabled: boolean;
  readonly update_interval_minutes: number;
  readonly turn_minutes_min: number;
}

export interface AngularSpread {
  readonly ratio: number | null;
  readonly preferred: boolean;
}

export interface AttributeThreshold {
  readonly attribute: string;
  readonly minimum: number | null;
  readonly maximum: number | null;
}

export interface Blocker {
  readonly slot_key: string;
  readonly job_id: string;
  readonly job_type: string;
  readonly session_id: string;
  readonly indefinite: boolean;
  readonly since: number | null;
}

export interface ClassAverage {
  readonly class_number: number;
  readonly particle_count: number;
  readonly resolution_angstrom: number | null;
  readonly effective_classes: number | null;
  readonly junk: boolean;
  readonly selected: boolean;
  readonly restarts: number;
  readonly mean_probability: number | null;
  readonly quality: number | null;
}

export interface ClassAverages {
  readonly session_id: string;
  readonly job_id: string;
  readonly revision: number;
  readonly particle_block_sequence: number;
  readonly particle_count: number;
  readonly box_px: number;
  readonly pixel_size_angstrom: number | null;
  readonly averages: string;
  readonly sheet: string;
  readonly sheet_columns: number;
  readonly sheet_tile_px: number;
  readonly assignments: string;
  readonly classes: readonly ClassAverage[];
  readonly final: boolean;
  readonly publish_time: number | null;
  readonly selection: ClassSelection | null;
  readonly selected_particle_count: number;
}

export interface ClassOverride {
  readonly class_number: number;
  readonly selected: boolean;
  readonly restarts: number;
}

export interface ClassSelection {
  readonly revision: number;
  readonly thresholds: ClassThresholds | null;
  readonly overrides: readonly ClassOverride[];
  readonly all_particles: boolean;
}

export interface ClassThresholds {
  readonly particle_count_min: number;
  readonly resolution_max_angstrom: number | null;
  readonly effective_classes_max: number | null;
  readonly ignore_ranking: boolean;
}

export interface ClusterJob {
  readonly name: string;
  readonly cluster_job_id: string;
  readonly state: string;
  readonly cluster_reason: string;
  readonly submit_time: number | null;
  readonly end_time: number | null;
}

export interface ComputeAdvice {
  readonly jobs: readonly PlannedJob[];
  readonly slots: number;
  readonly free_slots: number;
  readonly sentences: readonly string[];
  readonly suggestion: ComputeResources | null;
}

export interface ComputeResources {
  readonly preprocessing_lane: string;
  readonly preprocessing_workers: number;
  readonly reconstruction_lane: string;
  readonly auxiliary_lane: string;
  readonly priority: number;
  readonly preprocessing_gpus: readonly string[];
  readonly reconstruction_gpus: readonly string[];
  readonly auxiliary_gpus: readonly string[];
  readonly wait_for_exposures: boolean;
  readonly auto_pause: "unspecified" | "graceful" | "immediate" | "unknown";
  readonly auto_pause_idle_minutes: number;
  readonly streaming_start: "unspecified" | "on_request" | "unknown";
  readonly alternation: Alternation | null;
}

export interface ExplainWaitResponse {
  readonly reason: string;
  readonly sentence: string;
  readonly position: number;
  readonly blockers: readonly Blocker[];
  readonly remedy: string;
}

export interface Exposure {
  readonly exposure_id: string;
  readonly session_id: string;
  readonly number: number;
  readonly file: MovieFile | null;
  readonly metadata: MovieMetadata | null;
  readonly generation: number;
  readonly state: "unspecified" | "ready" | "running" | "done" | "quarantined" | "unknown";
  readonly attempts: number;
  readonly failure: string;
  readonly result: ExposureResult | null;
  readonly register_time: number | null;
  readonly finish_time: number | null;
  readonly override: "unspecified" | "accept" | "reject" | "unknown";
  readonly rejected: string;
}

export interface ExposureResult {
  readonly folder: string;
  readonly micrograph: string;
  readonly thumbnail: string;
  readonly spectrum: string;
  readonly motion_star: string;
  readonly picks_star: string;
  readonly particles: string;
  readonly particle_table: string;
  readonly width_px: number;
  readonly height_px: number;
  readonly pixel_size_angstrom: number | null;
  readonly voltage_kv: number | null;
  readonly spherical_aberration_mm: number | null;
  readonly amplitude_contrast: number | null;
  readonly dose_per_frame_e_per_angstrom2: number | null;
  readonly motion_total_angstrom: number | null;
  readonly motion_early_angstrom: number | null;
  readonly motion_late_angstrom: number | null;
  readonly motion_converged: boolean;
  readonly defocus_u_angstrom: number | null;
  readonly defocus_v_angstrom: number | null;
  readonly defocus_angle_degrees: number | null;
  readonly phase_shift_degrees: number | null;
  readonly ctf_score: number | null;
  readonly ctf_fit_resolution_angstrom: number | null;
  readonly pick_count: number;
  readonly particle_count: number;
  readonly particle_box_px: number;
  readonly particle_pixel_size_angstrom: number | null;
  readonly stage_seconds: Readonly<Record<string, number | null>>;
  readonly warnings: readonly string[];
  readonly motion_local_angstrom: number | null;
  readonly motion_sigma_px: number | null;
  readonly defocus_field_angstrom: readonly (number | null)[];
  readonly defocus_range_angstrom: number | null;
  readonly tilt_angle_degrees: number | null;
  readonly tilt_axis_degrees: number | null;
  readonly ice_ring: number | null;
  readonly ice_thickness_relative: number | null;
  readonly micrograph_unweighted: string;
  readonly candidates: string;
  readonly candidate_count: number;
  readonly pick_score_min: number | null;
  readonly picker: string;
  readonly pick_score_median: number | null;
  readonly pick_power_median: number | null;
  readonly motion_frame_max_angstrom: number | null;
  readonly stage_end_times: Readonly<Record<string, number | null>>;
  readonly stage_digests: Readonly<Record<string, string>>;
}

export interface FscCurves {
  readonly unmasked: readonly (number | null)[];
  readonly masked: readonly (number | null)[];
  readonly randomised: readonly (number | null)[];
  readonly corrected: readonly (number | null)[];
}

export interface GpuSlot {
  readonly slot_key: string;
  readonly node_id: string;
  readonly kind: "unspecified" | "gpu" | "cpu" | "unknown";
  readonly device_name: string;
  readonly memory_mib: number;
  readonly quarantined: string;
  readonly lease: Lease | null;
  readonly drained: string;
  readonly gpu_memory_used_mib: number;
  readonly gpu_memory_total_mib: number;
  readonly gpu_utilization_percent: number;
  readonly handoff_session_id: string;
}

export interface Job {
  readonly job_id: string;
  readonly sequence: number;
  readonly session_id: string;
  readonly job_type: string;
  readonly lane: string;
  readonly state: "unspecified" | "waiting" | "starting" | "running" | "stopping" | "paused" | "done" | "failed" | "cancelled" | "unknown";
  readonly reason: string;
  readonly lease: Lease | null;
  readonly progress: string;
  readonly failures: number;
  readonly priority: number;
  readonly indefinite: boolean;
  readonly parked: boolean;
  readonly gpus: readonly string[];
  readonly gpu_memory_min_mib: number;
  readonly state_time: number | null;
  readonly stalled: boolean;
  readonly parameters: Readonly<Record<string, string>>;
}

export interface Lane {
  readonly name: string;
  readonly backend: string;
  readonly node_globs: readonly string[];
  readonly options_json: string;
  readonly from_file: boolean;
  readonly problem: string;
  readonly cluster_jobs: readonly ClusterJob[];
}

export interface Lease {
  readonly lease_id: string;
  readonly epoch: number;
  readonly slot_key: string;
  readonly job_id: string;
  readonly state: "unspecified" | "reserved" | "held" | "releasing" | "lost" | "closed" | "unknown";
  readonly grant_time: number | null;
}

export interface MovieFile {
  readonly relative_path: string;
  readonly size_bytes: number;
  readonly modified_ns: number;
  readonly inode: string;
  readonly frame_count: number;
  readonly width_px: number;
  readonly height_px: number;
  readonly defect: string;
}

export interface MovieMetadata {
  readonly pixel_size_angstrom: number | null;
  readonly voltage_kv: number | null;
  readonly spherical_aberration_mm: number | null;
  readonly dose_per_frame_e_per_angstrom2: number | null;
  readonly total_dose_e_per_angstrom2: number | null;
  readonly frame_count: number | null;
  readonly width_px: number | null;
  readonly height_px: number | null;
  readonly beam_shift_x: number | null;
  readonly beam_shift_y: number | null;
  readonly stage_x_um: number | null;
  readonly stage_y_um: number | null;
  readonly acquired_at: string | null;
  readonly grid_square: string | null;
  readonly foil_hole: string | null;
  readonly gain_path: string | null;
  readonly provenance: Readonly<Record<string, string>>;
}

export interface Node {
  readonly node_id: string;
  readonly state: "unspecified" | "up" | "suspect" | "lost" | "ended" | "unknown";
  readonly programs: readonly string[];
  readonly slots: readonly GpuSlot[];
  readonly last_seen_time: number | null;
}

export interface Notice {
  readonly level: string;
  readonly sentence: string;
}

export interface PlannedJob {
  readonly job_type: string;
  readonly lane: string;
  readonly gpu_memory_min_mib: number;
  readonly slot_key: string;
  readonly reason: string;
  readonly sentence: string;
  readonly indefinite: boolean;
}

export interface Profile {
  readonly name: string;
  readonly description: string;
  readonly parameters: SessionParameters | null;
  readonly compute: ComputeResources | null;
  readonly save_time: number | null;
}

export interface ResolutionPoint {
  readonly particle_count: number;
  readonly resolution_angstrom: number | null;
}

export interface ScanStatus {
  readonly sweeps: number;
  readonly files_seen: number;
  readonly files_settling: number;
  readonly seconds_since_change: number | null;
  readonly problem: string;
  readonly omission: string;
}

export interface Session {
  readonly session_id: string;
  readonly name: string;
  readonly state: "unspecified" | "paused" | "running" | "pausing" | "completing" | "completed" | "deleting" | "unknown";
  readonly state_reason: string;
  readonly parameters: SessionParameters | null;
  readonly compute: ComputeResources | null;
  readonly folder: string;
  readonly counts: SessionCounts | null;
  readonly scan: ScanStatus | null;
  readonly create_time: number | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly compute_next: ComputeResources | null;
  readonly slot_switch: SlotSwitch | null;
  readonly thresholds: readonly AttributeThreshold[];
}

export interface SessionCounts {
  readonly found: number;
  readonly ready: number;
  readonly running: number;
  readonly done: number;
  readonly quarantined: number;
  readonly particles: number;
  readonly particle_block_sequence: number;
  readonly particles_classified: number;
  readonly rejected: number;
}

export interface SessionParameters {
  readonly movie_folder: string;
  readonly movie_glob: string;
  readonly metadata_folder: string;
  readonly pixel_size_angstrom: number | null;
  readonly voltage_kv: number | null;
  readonly spherical_aberration_mm: number | null;
  readonly amplitude_contrast: number | null;
  readonly dose_per_frame_e_per_angstrom2: number | null;
  readonly gain_path: string;
  readonly gain_flip: string;
  readonly gain_rotate: number;
  readonly defects_path: string;
  readonly particle_diameter_angstrom: number | null;
  readonly particle_diameter_max_angstrom: number | null;
  readonly box_size_px: number;
  readonly output_box_px: number;
  readonly class_count: number;
  readonly class_max_resolution_angstrom: number | null;
  readonly class_mask_diameter_angstrom: number | null;
  readonly class_batch_particles: number;
  readonly seed: number;
  readonly until: string;
  readonly picker: string;
  readonly picker_shapes: readonly string[];
  readonly picker_min_distance_diameters: number | null;
  readonly picker_max_picks: number;
  readonly picker_score_min: number | null;
  readonly picker_power_min: number | null;
  readonly picker_power_max: number | null;
  readonly picker_templates_path: string;
  readonly picker_lowpass_angstrom: number | null;
  readonly picker_angular_step_degrees: number | null;
  readonly picker_template_numbers: readonly number[];
  readonly camera: string;
  readonly symmetry: string;
  readonly initial_volume_path: string;
  readonly eer_fractions: number;
  readonly eer_dose_per_fraction_e_per_angstrom2: number | null;
  readonly eer_upsampling: number;
  readonly gain_sense: string;
  readonly read_bzip2: boolean;
  readonly total_dose_e_per_angstrom2: number | null;
  readonly load_crop: number;
  readonly phase_shift_min_degrees: number | null;
  readonly phase_shift_max_degrees: number | null;
}

export interface SlotSwitch {
  readonly jobs: Readonly<Record<string, number>>;
  readonly state: "unspecified" | "switching" | "done" | "cancelled" | "unknown";
  readonly asked_by: string;
  readonly sentence: string;
  readonly ask_time: number | null;
}

export interface Volume {
  readonly session_id: string;
  readonly job_id: string;
  readonly revision: number;
  readonly kind: "unspecified" | "refinement" | "ab_initio" | "unknown";
  readonly particle_block_sequence: number;
  readonly particle_count: number;
  readonly box_px: number;
  readonly pixel_size_angstrom: number | null;
  readonly symmetry: string;
  readonly resolution_angstrom: number | null;
  readonly supported: boolean;
  readonly fsc: FscCurves | null;
  readonly b_factor_angstrom2: number | null;
  readonly angular_spread: AngularSpread | null;
  readonly history: readonly ResolutionPoint[];
  readonly trend_b_factor_angstrom2: number | null;
  readonly volume: string;
  readonly sharpened: string;
  readonly half1: string;
  readonly half2: string;
  readonly mask: string;
  readonly sheet: string;
  readonly poses: string;
  readonly classes: readonly VolumeClass[];
  readonly final: boolean;
  readonly publish_time: number | null;
}

export interface VolumeClass {
  readonly volume: string;
  readonly fraction: number | null;
}

export interface ExposureSummary {
  readonly exposure_id: string;
  readonly number: number;
  readonly relative_path: string;
  readonly state: "unspecified" | "ready" | "running" | "done" | "quarantined" | "unknown";
  readonly failure: string;
  readonly override: "unspecified" | "accept" | "reject" | "unknown";
  readonly rejected: string;
  readonly version: string;
  readonly register_time: number | null;
  readonly finish_time: number | null;
  readonly width_px: number | null;
  readonly height_px: number | null;
  readonly motion_total_angstrom: number | null;
  readonly motion_converged: boolean | null;
  readonly defocus_u_angstrom: number | null;
  readonly defocus_v_angstrom: number | null;
  readonly ctf_fit_resolution_angstrom: number | null;
  readonly ctf_score: number | null;
  readonly pick_count: number | null;
  readonly particle_count: number | null;
  readonly warning_count: number | null;
  readonly attributes: readonly (number | null)[] | null;
}
