"""Pictures for a fake session: micrographs with dark particles, power spectra with rings, a sheet of class averages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH_PX, HEIGHT_PX = 4096, 2912  # the full micrograph
THUMB_WIDTH_PX, THUMB_HEIGHT_PX = 512, 364


@dataclass(frozen=True, slots=True)
class Picture:
    """What one fake exposure shows."""

    picks: list[tuple[float, float, float]]
    thumbnail: Image.Image
    spectrum: Image.Image


def micrograph(seed: int, *, pick_count: int, defocus_um: float) -> Picture:
    """Draw dark blobs in noise at known places."""
    rng = np.random.default_rng(seed)
    picks = _scatter(rng, pick_count)
    scale = THUMB_WIDTH_PX / WIDTH_PX
    ice = Image.fromarray(rng.normal(128, 60, (24, 34)).clip(0, 255).astype(np.uint8)).resize(
        (THUMB_WIDTH_PX, THUMB_HEIGHT_PX), Image.Resampling.BICUBIC
    )
    drawn = Image.new("L", (THUMB_WIDTH_PX, THUMB_HEIGHT_PX), 150)
    pen = ImageDraw.Draw(drawn)
    for x, y, _ in picks:
        cx, cy, r = x * scale, y * scale, 7.0
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=105)
        pen.ellipse((cx - r * 0.4, cy - r * 0.5, cx + r * 0.5, cy + r * 0.3), fill=80)
    drawn = drawn.filter(ImageFilter.GaussianBlur(1.6))
    noise = rng.normal(0, 20, (THUMB_HEIGHT_PX, THUMB_WIDTH_PX))
    noise = 0.4 * noise + 0.6 * (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 1.7
    pixels = np.asarray(drawn, dtype=float) + 0.14 * (np.asarray(ice, dtype=float) - 128) + noise
    return Picture(picks, Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), _spectrum(rng, defocus_um))


def _scatter(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Throw points at least 130 px apart, away from the edges."""
    points: list[tuple[float, float, float]] = []
    for _ in range(count * 30):
        x, y = rng.uniform(90, WIDTH_PX - 90), rng.uniform(90, HEIGHT_PX - 90)
        if all((x - px) ** 2 + (y - py) ** 2 > 130**2 for px, py, _ in points):
            points.append((float(x), float(y), float(rng.uniform(0.3, 0.9))))
        if len(points) == count:
            break
    return points


def _spectrum(rng: np.random.Generator, defocus_um: float) -> Image.Image:
    size = 256
    y, x = np.mgrid[:size, :size] - size / 2
    s = np.hypot(x, y * 1.03) / (size / 2) * 0.25
    rings = np.sin(np.pi * 0.0197 * s**2 * defocus_um * 1e4) ** 2 * np.exp(-60 * s**2)
    pixels = 40 + 150 * rings + 90 * np.exp(-900 * s**2) + rng.normal(0, 16, s.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def class_sheet(path: Path, counts: list[int], *, columns: int, tile_px: int, seed: int) -> None:
    """Draw one blob pattern per class, blurrier with fewer particles."""
    rows = -(-len(counts) // columns)
    sheet = Image.new("L", (columns * tile_px, rows * tile_px), 60)
    most = max(counts)
    for place, count in enumerate(counts):
        rng = np.random.default_rng(seed + place)
        tile = _average(rng, tile_px, sharpness=count / most)
        sheet.paste(tile, ((place % columns) * tile_px, (place // columns) * tile_px))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _average(rng: np.random.Generator, size: int, *, sharpness: float) -> Image.Image:
    y, x = (np.mgrid[:size, :size] - size / 2) / (size / 2)
    angle = rng.uniform(0, 2 * np.pi)
    fold = int(rng.choice([2, 3, 4, 6]))
    density = 0.9 * np.exp(-(((x**2 + y**2) / 0.28) ** 4))
    for k in range(fold):
        a = angle + 2 * np.pi * k / fold
        density += 1.1 * np.exp(-((x - 0.34 * np.cos(a)) ** 2 + (y - 0.34 * np.sin(a)) ** 2) / 0.018)
    density -= 0.8 * np.exp(-(x**2 + y**2) / 0.02)
    noise = rng.normal(0, 0.25 + 0.6 * (1 - sharpness), (size, size))
    soft = Image.fromarray(((density + noise) * 70 + 70).clip(0, 255).astype(np.uint8))
    return soft.filter(ImageFilter.GaussianBlur(0.8 + 2.5 * (1 - sharpness)))
