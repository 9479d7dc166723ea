"""Grounds for generated scenes: muted, textured, with unlabelled clutter."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from prelabel.scenes.sprites import Field, hsv_colour


def draw_background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw a gradient with cloudy noise and, by chance, stripes, tiles, bricks and flat clutter (RGB)."""
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
    turn = rng.uniform(0, 2 * np.pi)
    hue = rng.random()
    first, second = (
        hsv_colour(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.85)) for _ in range(2)
    )
    mix = (0.5 + 0.5 * (x * np.cos(turn) + y * np.sin(turn))).clip(0, 1)[..., None]
    brightness = _cloud(rng, width, height) * rng.uniform(8, 40) + _pattern(rng, x, y * height / width)
    picture = first * mix + second * (1 - mix) + brightness[..., None]
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    _draw_clutter(rng, image)
    return image


def _cloud(rng: np.random.Generator, width: int, height: int) -> Field:
    """Sum octaves of value noise into a field (height, width) of about -1..1."""
    total = np.zeros((height, width), dtype=np.float32)
    for cells in (4, 11, 29, 83):
        grid = rng.uniform(-1, 1, (cells, round(cells * 1.7))).astype(np.float32)
        smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth) * cells**-0.35
    return total


def _pattern(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Return brightness to add (H, W): nothing, stripes, tiles or bricks, turned by a random angle."""
    kind = rng.choice(["plain", "stripes", "tiles", "bricks"])
    turn, cells = rng.uniform(0, np.pi), rng.uniform(3, 9)
    u = (x * np.cos(turn) + y * np.sin(turn)) * cells
    v = (y * np.cos(turn) - x * np.sin(turn)) * cells
    strength = rng.uniform(8, 32)
    brightness: Field = np.zeros_like(x)
    if kind == "stripes":
        brightness = strength * np.tanh(rng.uniform(1, 5) * np.sin(u * 3))
    elif kind == "tiles":
        brightness = strength * ((np.floor(u) + np.floor(v)) % 2 - 0.5)
    elif kind == "bricks":
        row = np.floor(v * 2)
        mortar = ((v * 2 - row) < 0.1) | ((u + row % 2 / 2) % 1 < 0.05)
        brightness = np.where(mortar, -strength, 0)
    return brightness


def _draw_clutter(rng: np.random.Generator, image: Image.Image) -> None:
    """Paint flat blobs and lines onto a background, half see-through."""
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        w, h = rng.uniform(0.05, 0.3, 2) * image.height
        red, green, blue = hsv_colour(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.9)).astype(int).tolist()
        fill = (red, green, blue, int(rng.integers(60, 160)))
        shape = rng.integers(3)
        if shape == 0:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=fill)
        elif shape == 1:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=fill)
        else:
            draw.line((x - 3 * w, y - 2 * h, x + 3 * w, y + 2 * h), fill=fill, width=int(rng.integers(2, 12)))
