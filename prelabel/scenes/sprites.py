"""Drawings of the things that generated scenes show: each a shaded RGBA picture on a transparent ground."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Field = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Painter = Callable[[np.random.Generator, Field, Field], tuple[Field, Mask]]

SUPERSAMPLING = 2
_LIGHT = np.array([-0.48, -0.56, 0.67], dtype=np.float32)  # unit vector towards the light: upper left, in front
_WHITE = np.array([242, 240, 232], dtype=np.float32)


def draw_sprite(class_name: str, diameter_px: int, rng: np.random.Generator) -> Image.Image:
    """Draw one thing with its own random colours and details.

    Args:
        class_name: a name of `CLASS_NAMES` or of `DISTRACTOR_NAMES`.
        diameter_px: side of the square picture; the thing fills most of it.
        rng: where the random colours and details come from.

    Returns:
        An RGBA image of (diameter_px, diameter_px), alpha 0 outside the thing.
    """
    side = diameter_px * SUPERSAMPLING
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = np.meshgrid(axis, axis)
    colour, mask = _PAINTERS[class_name](rng, x, y)
    alpha = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    inner = np.asarray(alpha.filter(ImageFilter.BoxBlur(side / 45)), dtype=np.float32) / 255
    outlined = colour * np.where(inner > 0.9, 1.0, 0.42)[..., None]
    rgba = np.dstack([outlined.clip(0, 255).astype(np.uint8), np.asarray(alpha)])
    return Image.fromarray(rgba).reduce(SUPERSAMPLING)


def hsv_colour(hue: float, saturation: float, value: float) -> Field:
    """Return the colour of a hue (in turns), a saturation and a value (0..1) as RGB (3,) float32 in 0..255."""
    ramp = np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    rgb: Field = (255 * value * (1 - saturation * (1 - ramp.clip(0, 1)))).astype(np.float32)
    return rgb


def _pick(condition: Mask, yes: Field, no: Field) -> Field:
    """Colour (..., 3) `yes` where the condition (H, W) holds, else `no`."""
    return np.where(condition[..., None], yes, no).astype(np.float32)


def _lit(colour: Field, normal_x: Field, normal_y: Field, gloss: float) -> Field:
    """Shade a colour by Blinn-Phong light on a surface with these normals (the viewer is at +z)."""
    normal_z = np.sqrt((1 - normal_x**2 - normal_y**2).clip(0, 1))
    half = _LIGHT + np.array([0, 0, 1], dtype=np.float32)
    half /= np.linalg.norm(half)
    diffuse = (normal_x * _LIGHT[0] + normal_y * _LIGHT[1] + normal_z * _LIGHT[2]).clip(0, 1)
    highlight = (normal_x * half[0] + normal_y * half[1] + normal_z * half[2]).clip(0, 1) ** 40
    lit: Field = colour * (0.38 + 0.68 * diffuse)[..., None] + (255 * gloss * highlight)[..., None]
    return lit


def _ball(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A beach ball: coloured and white panels that meet at a pole."""
    z = np.sqrt((1 - (x / 0.96) ** 2 - (y / 0.96) ** 2).clip(0, 1))
    tilt = rng.uniform(0.5, 1.0)
    depth = z * np.cos(tilt) - y * np.sin(tilt)
    height = z * np.sin(tilt) + y * np.cos(tilt)
    panel = np.floor((np.arctan2(x, depth) / (2 * np.pi) + rng.random()) * 6).astype(int) % 6
    hue = rng.random()
    first, second = hsv_colour(hue, 0.85, 0.9), hsv_colour(hue + rng.uniform(0.2, 0.5), 0.8, 0.95)
    colour = _pick(panel % 2 == 0, _WHITE, _pick(panel % 4 == 1, first, second))
    colour = _pick(height > 0.95, _WHITE, colour)
    return _lit(colour, x / 0.96, y / 0.96, gloss=0.6), x**2 + y**2 < 0.96**2


def _crate(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A wooden crate: planks, a frame around them and a brace across."""
    wood = hsv_colour(rng.uniform(0.06, 0.11), rng.uniform(0.45, 0.65), rng.uniform(0.6, 0.85))
    planks = rng.uniform(0.8, 1.05, 5)
    row = ((y + 1) / 2 * 5).clip(0, 4.99)
    tone = planks[row.astype(int)] * np.where(row % 1 < 0.1, 0.5, 1.0)
    grain = 0.06 * np.sin(x * 9 + 40 * y + 2 * np.sin(x * 5 + row.astype(int)))
    from_centre, off_diagonal = np.maximum(np.abs(x), np.abs(y)), np.abs(x - y)
    tone = np.where(off_diagonal < 0.2, 1.05, tone)
    tone = np.where(np.abs(off_diagonal - 0.2) < 0.035, 0.55, tone)
    tone = np.where(from_centre > 0.68, np.where(np.abs(x) > np.abs(y), 1.1, 1.2), tone)
    tone = np.where(np.abs(from_centre - 0.68) < 0.03, 0.55, tone)
    tone = (tone + grain) * (1 - 0.12 * (x + y))
    return wood * tone[..., None], from_centre < 0.95


def _star(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A five-pointed star with bevelled facets."""
    radius, turn = np.hypot(x, y) / 0.98, np.arctan2(x, -y)
    fifth = 2 * np.pi / 5
    folded = (turn + fifth / 2) % fifth - fifth / 2
    along, across = radius * np.cos(folded), radius * np.sin(folded)
    dent = rng.uniform(0.42, 0.52)
    dent_along, dent_across = dent * np.cos(fifth / 2), dent * np.sin(fifth / 2)
    mask = np.abs(across) * (1 - dent_along) < (1 - along) * dent_across
    facing = turn - folded + np.sign(folded) * 1.2
    tone = 0.8 + 0.35 * np.cos(facing + 0.7)
    colour = hsv_colour(rng.choice([0.13, 0.15, 0.92, 0.55]), rng.uniform(0.65, 0.85), 0.98)
    return colour * tone[..., None] + 30 * (1 - radius).clip(0, 1)[..., None], mask


def _ring(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A life buoy: a torus in white and coloured segments; its hole shows what lies behind."""
    radius = np.hypot(x, y)
    middle, thickness = 0.68, rng.uniform(0.24, 0.29)
    bulge = ((radius - middle) / thickness).clip(-1, 1)
    count = int(rng.choice([6, 8]))
    segment = np.floor((np.arctan2(y, x) / (2 * np.pi) + 0.5) * count).astype(int) % 2
    colour = _pick(segment == 0, _WHITE, hsv_colour(rng.choice([0.0, 0.03, 0.6, 0.45]), 0.85, 0.88))
    safe = np.maximum(radius, 1e-3)
    lit = _lit(colour, bulge * x / safe, bulge * y / safe, gloss=0.45)
    return lit, np.abs(radius - middle) < thickness


def _cone(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A traffic cone: orange with white bands on a square foot."""
    half_width = 0.12 + 0.46 * (y + 0.95) / 1.65
    body = (np.abs(x) < half_width) & (y > -0.95) & (y < 0.72)
    foot = (np.abs(x) < 0.86) & (y > 0.64) & (y < 0.92)
    across = (x / np.maximum(half_width, 0.05)).clip(-1, 1)
    level = y - 0.08 * np.sqrt((1 - across**2).clip(0, 1))
    bands = (np.abs(level + 0.35) < 0.13) | (np.abs(level - 0.2) < 0.14)
    orange = hsv_colour(rng.uniform(0.03, 0.065), rng.uniform(0.85, 0.95), 0.97)
    lit_body = _lit(_pick(bands, _WHITE, orange), across * 0.95, np.zeros_like(x), gloss=0.15)
    lit_foot = orange * np.where(y < 0.7, 0.95, 0.7)[..., None]
    return _pick(foot & ~(body & (y < 0.7)), lit_foot, lit_body), body | foot


def _leaf(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A leaf: toothed, pointed, with a midrib, side veins and a stem."""
    bend = y - 0.12 * np.sin(2.4 * x + rng.uniform(-0.6, 0.6))
    length = ((x + 0.72) / 1.68).clip(0, 1)
    teeth = 1 + 0.07 * (np.abs((length * 14) % 1 - 0.5) * 4 - 1)
    half_width = rng.uniform(1.6, 2.0) * length**0.75 * (1 - length) ** 0.8 * teeth * 0.85
    blade = (np.abs(bend) < half_width) & (x > -0.72)
    stem = (np.abs(bend) < 0.05) & (x > -0.97) & (x <= -0.6)
    green = hsv_colour(rng.choice([0.26, 0.31, 0.36, 0.2]), rng.uniform(0.6, 0.8), rng.uniform(0.55, 0.75))
    vein_phase = (x - 0.9 * np.abs(bend)) * 4.5 % 1
    on_vein = (np.abs(bend) < 0.035) | (vein_phase < 0.13)
    tone = np.where(bend < 0, 1.12, 0.86) + 0.12 * vein_phase
    colour = _pick(on_vein, green * 0.55 + 95, green * tone[..., None])
    return _pick(stem, green * 0.5 + 30, colour), blade | stem


def _pebble(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A grey stone, a distractor."""
    turn = np.arctan2(y, x)
    phases = rng.uniform(0, 2 * np.pi, 3)
    edge = 0.74 + 0.1 * np.sin(2 * turn + phases[0]) + 0.06 * np.sin(3 * turn + phases[1])
    edge = edge + 0.03 * np.sin(5 * turn + phases[2])
    grey = hsv_colour(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.4, 0.75))
    speckle = 1 + 0.05 * rng.standard_normal(x.shape, dtype=np.float32)
    return _lit(grey * speckle[..., None], x / edge * 0.8, y / edge * 0.8, gloss=0.05), np.hypot(x, y) < edge


def _plank(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Mask]:
    """A painted board, a distractor."""
    colour = hsv_colour(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.35, 0.85))
    tone = 1 + 0.08 * np.sin(y * 60 + 3 * np.sin(x * 4)) - 0.15 * y
    half_width = rng.uniform(0.12, 0.3)
    return colour * tone[..., None], (np.abs(y) < half_width) & (np.abs(x) < 0.95)


_PAINTERS: dict[str, Painter] = {
    "ball": _ball,
    "crate": _crate,
    "star": _star,
    "ring": _ring,
    "cone": _cone,
    "leaf": _leaf,
    "pebble": _pebble,
    "plank": _plank,
}
CLASS_NAMES = ("ball", "crate", "star", "ring", "cone", "leaf")
DISTRACTOR_NAMES = ("pebble", "plank")
