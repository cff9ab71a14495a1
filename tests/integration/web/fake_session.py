"""Grows a plausible session in a fake scheduler: nodes with slots, jobs, exposures that become thumbnails, classes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from frazil.api.exposure.v1 import exposure_pb2
from frazil.api.reconstruction.v1 import reconstruction_pb2
from frazil.api.scheduler.v1 import scheduler_pb2
from integration.web.fake_images import HEIGHT_PX, WIDTH_PX, class_sheet, micrograph
from integration.web.fake_scheduler import Exposure, FakeScheduler

PIXEL_SIZE_ANGSTROM = 0.83
SHEET_COLUMNS, SHEET_TILE_PX = 10, 96


class Microscope:
    """One growing session. Everything it draws follows from its seed; time is asked of `clock`."""

    def __init__(self, ledger: FakeScheduler, session: Any, *, clock: Callable[[], float], seed: int = 1) -> None:
        self.ledger = ledger
        self.session = session
        self.clock = clock
        self.random = random.Random(seed)
        self.pictures: dict[int, Any] = {}
        self.share_pictures = 0  # draw only so many different pictures
        self.revision = 0

    def path(self, number: int) -> str:
        """Return a movie's path as EPU would name it."""
        square = 2200 + number // 12
        return f"GridSquare_{square}/Data/FoilHole_{8_100_000 + 37 * number}_Data_{number:06d}_fractions.tiff"

    async def find(self, *, time: float | None = None) -> Any:
        """Register one movie."""
        number = len(self.ledger.exposures[self.session.session_id]) + 1
        return await self.ledger.add_exposure(
            self.session.session_id, self.path(number), time=self.clock() if time is None else time
        )

    async def run(self, exposure: Any) -> None:
        """Let a worker claim it."""
        exposure.state = Exposure.STATE_RUNNING
        await self._publish("exposure_running", exposure)

    async def fail(self, exposure: Any, sentence: str, *, time: float | None = None) -> None:
        """Quarantine it."""
        exposure.state, exposure.failure, exposure.attempts = Exposure.STATE_QUARANTINED, sentence, 3
        exposure.finish_time.FromNanoseconds(int((self.clock() if time is None else time) * 1e9))
        await self._publish("exposure_quarantined", exposure)

    async def finish(self, exposure: Any, *, time: float | None = None) -> None:
        """Write its files and commit its result."""
        result = self._result(exposure)
        exposure.result.CopyFrom(result)
        exposure.state, exposure.attempts = Exposure.STATE_DONE, 1
        exposure.finish_time.FromNanoseconds(int((self.clock() if time is None else time) * 1e9))
        await self._publish("exposure_done", exposure)

    async def _publish(self, kind: str, exposure: Any) -> None:
        await self.ledger.publish(kind, session_id=self.session.session_id, time=self.clock(), exposure=exposure)

    def _result(self, exposure: Any) -> Any:
        draw, number = self.random, exposure.number
        defocus = 1.3e4 + 1.1e4 * (0.5 + 0.5 * math.sin(number * 1.7)) + draw.gauss(0, 400)
        bad_ice = draw.random() < 0.07
        resolution = 3.4 + abs(draw.gauss(0, 0.45)) + (draw.uniform(4, 14) if bad_ice else 0)
        pick_count = draw.randint(4, 25) if bad_ice else draw.randint(110, 190)
        kind = number % self.share_pictures if self.share_pictures else number
        if kind not in self.pictures:
            self.pictures[kind] = micrograph(kind, pick_count=pick_count, defocus_um=defocus / 1e4)
        picture = self.pictures[kind]
        folder = f"exposures/{number:06d}/attempt-1"
        self._write_files(folder, picture)
        result = exposure_pb2.ExposureResult(
            folder=folder,
            micrograph="micrograph.mrc",
            thumbnail="thumbnail.png",
            spectrum="spectrum.png",
            motion_star="motion.star",
            picks_star="picks.star",
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
            pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
            voltage_kv=300,
            spherical_aberration_mm=2.7,
            amplitude_contrast=0.1,
            dose_per_frame_e_per_angstrom2=1.0,
            motion_total_angstrom=6 + 22 * draw.random() ** 3 + 4 * math.exp(-number / 40),
            motion_early_angstrom=3.1,
            motion_late_angstrom=5.2,
            motion_converged=True,
            defocus_u_angstrom=defocus + 150,
            defocus_v_angstrom=defocus - 150,
            defocus_angle_degrees=37.5,
            ctf_score=0.11 if not bad_ice else 0.02,
            pick_count=len(picture.picks),
            particle_count=len(picture.picks) - 4 if len(picture.picks) > 4 else 0,
            particle_box_px=64,
            particle_pixel_size_angstrom=3.9,
            stage_seconds={"read": 1.9, "motion": 4.1, "ctf": 1.2, "pick": 0.7, "extract": 0.5},
            warnings=["Few rings: ice is thick or the hole is empty."] if bad_ice else [],
        )
        if not (bad_ice and draw.random() < 0.4):
            result.ctf_fit_resolution_angstrom = resolution
        return result

    def _write_files(self, folder: str, picture: Any) -> None:
        target = self.ledger.data_dir / self.session.name / folder
        target.mkdir(parents=True, exist_ok=True)
        picture.thumbnail.save(target / "thumbnail.png")
        picture.spectrum.save(target / "spectrum.png")
        rows = "".join(f"{x:13.6f} {y:13.6f} {score:13.6f}\n" for x, y, score in picture.picks)
        head = "loop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n"
        (target / "picks.star").write_text(f"\n# version 30001\n\ndata_\n\n{head}{rows}\n")
        track = "".join(
            f"{k + 1:7d} {6 * (1 - math.exp(-k / 7)):13.6f} {-3.2 * (1 - math.exp(-k / 11)) + 0.25 * math.sin(k):13.6f}\n"
            for k in range(50)
        )
        general = "_rlnImageSizeX 5760\n_rlnMicrographOriginalPixelSize 0.830000\n"
        head = "loop_\n_rlnMicrographFrameNumber #1\n_rlnMicrographShiftX #2\n_rlnMicrographShiftY #3\n"
        (target / "motion.star").write_text(f"data_general\n\n{general}\n\ndata_global_shift\n\n{head}{track}\n")

    async def publish_classes(self, *, class_count: int = 50, particle_count: int = 20_000, final: bool = False) -> Any:
        """Publish the next revision of the class averages."""
        self.revision += 1
        draw = random.Random(7)
        weights = [draw.paretovariate(1.1) for _ in range(class_count)]
        weights = [min(weight, 14) for weight in weights]
        counts = [int(particle_count * weight / sum(weights)) for weight in weights]
        session_id = self.session.session_id
        sheet = f"class2d/revision-{self.revision:04d}/sheet.png"
        path = self.ledger.data_dir / self.session.name / sheet
        class_sheet(path, counts, columns=SHEET_COLUMNS, tile_px=SHEET_TILE_PX, seed=100)
        classes = reconstruction_pb2.ClassAverages(
            session_id=session_id,
            job_id="j2",
            revision=self.revision,
            particle_count=sum(counts),
            box_px=64,
            pixel_size_angstrom=3.9,
            sheet=sheet,
            sheet_columns=SHEET_COLUMNS,
            sheet_tile_px=SHEET_TILE_PX,
            final=final,
        )
        classes.publish_time.FromNanoseconds(int(self.clock() * 1e9))
        for number, count in enumerate(counts, start=1):
            junk = count < 0.6 * particle_count / class_count
            average = classes.classes.add(
                class_number=number, particle_count=count, effective_classes=1.1 + 9 * draw.random() ** 4, junk=junk
            )
            if not junk or number % 2:
                average.resolution_angstrom = 7.9 + 9 * (1 - min(1.0, count / 1500)) + draw.random()
        self.ledger.classes[session_id] = classes
        await self.ledger.publish("class_averages_published", session_id=session_id, time=self.clock(), class_averages=classes)
        return classes


async def add_resources(ledger: FakeScheduler, session_id: str, *, now: float, other_session_id: str = "") -> None:
    """Put up three nodes, two running jobs of a session and one of another that waits."""
    job, slot, lease = scheduler_pb2.Job, scheduler_pb2.GpuSlot, scheduler_pb2.Lease
    leases = [
        lease(lease_id=f"l{k}", epoch=40 + k, slot_key=key, job_id=f"j{k}", state=lease.STATE_HELD)
        for k, key in ((1, "GPU-1f3a#0"), (2, "GPU-77c0#0"))
    ]
    for k, held in enumerate(leases):
        held.grant_time.FromNanoseconds(int((now - 2700 - 900 * k) * 1e9))
    gpu, card = slot.KIND_GPU, "NVIDIA H100 80GB HBM3"
    up, lost = scheduler_pb2.Node.STATE_UP, scheduler_pb2.Node.STATE_LOST
    programs = ["frazil-preprocess", "frazil-reconstruct"]
    box1 = scheduler_pb2.Node(node_id="gpubox-1", state=up, programs=programs)
    box1.slots.extend(
        [
            slot(slot_key="GPU-1f3a#0", node_id="gpubox-1", kind=gpu, device_name=card, memory_mib=81_008, lease=leases[0]),
            slot(slot_key="GPU-77c0#0", node_id="gpubox-1", kind=gpu, device_name=card, memory_mib=81_008, lease=leases[1]),
        ]
    )
    box2 = scheduler_pb2.Node(node_id="gpubox-2", state=up, programs=programs)
    box2.slots.extend(
        [
            slot(
                slot_key="GPU-9ab2#0",
                node_id="gpubox-2",
                kind=gpu,
                device_name="NVIDIA L40S",
                memory_mib=45_500,
                quarantined="The driver reported error 79: the GPU has fallen off the bus.",
            ),
            slot(slot_key="cpu#0", node_id="gpubox-2", kind=slot.KIND_CPU, device_name="AMD EPYC 9354", memory_mib=64_000),
        ]
    )
    box3 = scheduler_pb2.Node(node_id="gpubox-3", state=lost, programs=programs)
    for node in (box1, box2, box3):
        node.last_seen_time.FromNanoseconds(int((now - (4 if node.state == up else 400)) * 1e9))
    ledger.nodes.extend([box1, box2, box3])
    ledger.lanes.append(scheduler_pb2.Lane(name="gpu", backend="node", node_globs=["gpubox-*"]))
    progress = ("Aligning the frames of movie 212", "Pass 12 over 50 classes")
    kinds = ("preprocess", "class2d_streaming")
    for k in (0, 1):
        ledger.jobs.append(
            job(
                job_id=f"j{k + 1}",
                sequence=k + 1,
                session_id=session_id,
                job_type=kinds[k],
                lane="gpu",
                state=job.STATE_RUNNING,
                lease=leases[k],
                progress=progress[k],
            )
        )
    waiting = job(job_id="j3", sequence=3, job_type="preprocess", lane="gpu", state=job.STATE_WAITING, reason="LANE_HELD")
    waiting.session_id = other_session_id or session_id
    ledger.jobs.append(waiting)
    wait = scheduler_pb2.ExplainWaitResponse(
        reason="LANE_HELD",
        sentence="Both GPU slots of lane gpu are held by jobs that run until their session is paused.",
        position=0,
        remedy="Pause session apoferritin-grid7, or add a node to lane gpu.",
    )
    for held, job_type in zip(leases, kinds, strict=True):
        wait.blockers.add(
            slot_key=held.slot_key,
            job_id=held.job_id,
            job_type=job_type,
            session_id=session_id,
            indefinite=True,
            since=held.grant_time,
        )
    ledger.waits["j3"] = wait
    for node in ledger.nodes:
        await ledger.publish("node_up", time=now, node=node)
    for record in ledger.jobs:
        await ledger.publish("job_changed", session_id=record.session_id, time=now, job=record)
