"""Shots: moving things before a drifting background, rendered at any moment together with what is visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

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


MIN_COVERAGE = 0.25  # of a pixel, for that pixel to count as showing a thing
MIN_VISIBLE = 0.25  # of a thing's area, for it to be asked of a detector
MIN_SIDE_PX = 6
PAN_MARGIN = 0.08
DISTRACTOR = -1


@dataclass(frozen=True)
class SceneFrame:
    """One rendered frame and what is in it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        xyxy: (N, 4) float32, the visible extent of each thing, corners in pixels of the frame.
        class_id: (N,) int64, an index into `CLASS_NAMES`.
        object_id: (N,) int64, the same number for the same thing throughout a clip.
        is_crowd: (N,) bool, true for a thing too hidden or too small to ask for (COCO's `iscrowd`).
    """

    image: npt.NDArray[np.uint8]
    xyxy: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    object_id: npt.NDArray[np.int64]
    is_crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pose:
    """Where a sprite is put: its centre (2,) in pixels of the frame, its angle in radians, its scale."""

    centre: Field
    angle: float
    scale: float


@dataclass(frozen=True)
class Thing:
    """A sprite and its path: it bounces between walls, swings or spins, and breathes in size."""

    object_id: int
    class_id: int
    sprite: Image.Image
    start: Field  # (2,) px
    velocity: Field  # (2,) px/s
    walls: Field  # (2, 2) px, lowest and highest centre
    angle: float  # rad
    spin: float  # rad/s
    swing: float  # rad, amplitude
    breath: float  # amplitude of the scale
    phase: float  # rad

    def pose(self, seconds: float) -> Pose:
        """Return where the thing is at a time."""
        low, high = self.walls
        span = high - low
        unfolded = (self.start - low + self.velocity * seconds) % (2 * span)
        return Pose(
            centre=high - np.abs(unfolded - span),
            angle=self.angle + self.spin * seconds + self.swing * float(np.sin(2.1 * seconds + self.phase)),
            scale=1 - self.breath * (1 + float(np.sin(1.3 * seconds + self.phase))),
        )


@dataclass(frozen=True)
class Shot:
    """A background and the things before it, the farthest first."""

    width: int
    height: int
    background: Image.Image
    pan: float  # rad, the direction in which the camera drifts
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Patch:
    """What one thing adds to a frame at (left, top): colour times coverage (h, w, 3), and coverage (h, w) 0..1."""

    left: int
    top: int
    colour: Field
    coverage: Field
    whole_coverage: float  # px, as if nothing hid it and the frame had no edge

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that the patch lies on."""
        height, width = self.coverage.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def make_shot(rng: np.random.Generator, width: int, height: int, first_object_id: int) -> Shot:
    """Invent a shot; no class comes a third time before each came once."""
    num_things, num_distractors = int(rng.integers(4, 8)), int(rng.integers(1, 4))
    class_ids = rng.permutation(np.resize(rng.permutation(len(CLASS_NAMES)), num_things)).tolist()
    order = rng.permutation(class_ids + [DISTRACTOR] * num_distractors).tolist()
    things = [_make_thing(rng, width, height, first_object_id + i, class_id) for i, class_id in enumerate(order)]
    background = draw_background(rng, round(width * (1 + PAN_MARGIN)), round(height * (1 + PAN_MARGIN)))
    return Shot(width, height, background, rng.uniform(0, 2 * np.pi), tuple(things))


def render_shot(shot: Shot, seconds: float, exposure_seconds: float) -> SceneFrame:
    """Render a moment of a shot, the shutter open for `exposure_seconds` around it."""
    picture = _pan_background(shot, seconds)
    owner = np.full((shot.height, shot.width), -1, dtype=np.int16)
    patches = [_expose(thing, shot, seconds, exposure_seconds) for thing in shot.things]
    for index, patch in enumerate(patches):
        picture[patch.window] *= 1 - patch.coverage[..., None]
        picture[patch.window] += patch.colour
        owner[patch.window][patch.coverage > MIN_COVERAGE] = index
    shown = [owner[patch.window] == index for index, patch in enumerate(patches)]
    seen = [i for i, thing in enumerate(shot.things) if thing.class_id != DISTRACTOR and shown[i].any()]
    boxes = [_extent(patches[i], shown[i]) for i in seen]
    return SceneFrame(
        image=(picture + 0.5).astype(np.uint8),
        xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        class_id=np.array([shot.things[i].class_id for i in seen], dtype=np.int64),
        object_id=np.array([shot.things[i].object_id for i in seen], dtype=np.int64),
        is_crowd=np.array([_is_crowd(patches[i], shown[i]) for i in seen], dtype=np.bool_),
    )


def _make_thing(rng: np.random.Generator, width: int, height: int, object_id: int, class_id: int) -> Thing:
    name = str(rng.choice(DISTRACTOR_NAMES)) if class_id == DISTRACTOR else CLASS_NAMES[class_id]
    diameter = round(height * float(np.exp(rng.uniform(np.log(0.16), np.log(0.52)))))
    slack = rng.uniform(-0.5, 0.25)
    margin = diameter * (0.5 - slack if slack < 0 else 0.35)  # a third of the things leave the frame in part
    size = np.array([width, height], dtype=np.float32)
    walls = np.stack([np.full(2, margin), size - margin]).astype(np.float32)
    speed, heading = height * rng.choice([0.05, 0.2, 0.45, 1.1]), rng.uniform(0, 2 * np.pi)
    upright = name in ("ball", "cone")
    return Thing(
        object_id=object_id,
        class_id=class_id,
        sprite=draw_sprite(name, diameter, rng),
        start=(walls[0] + rng.random(2) * (walls[1] - walls[0])).astype(np.float32),
        velocity=(speed * np.array([np.cos(heading), np.sin(heading)])).astype(np.float32),
        walls=walls,
        angle=rng.uniform(-0.2, 0.2) if upright else rng.uniform(0, 2 * np.pi),
        spin=0.0 if upright else rng.uniform(-1.5, 1.5),
        swing=rng.uniform(0, 0.35),
        breath=rng.uniform(0, 0.2),
        phase=rng.uniform(0, 2 * np.pi),
    )


def _pan_background(shot: Shot, seconds: float) -> Field:
    """Return the part of the background that the drifting camera sees, (H, W, 3) in 0..255."""
    room = np.array([shot.background.width - shot.width, shot.background.height - shot.height])
    drift = np.array([np.cos(shot.pan), np.sin(shot.pan)]) * np.sin(0.5 * seconds)
    left, top = room * (0.5 + 0.5 * drift)
    seen = shot.background.transform(
        (shot.width, shot.height),
        Image.Transform.EXTENT,
        (left, top, left + shot.width, top + shot.height),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(seen).astype(np.float32)


def _expose(thing: Thing, shot: Shot, seconds: float, exposure_seconds: float) -> Patch:
    """Average the thing over the time that the shutter is open: motion blur."""
    travel_px = float(np.linalg.norm(thing.velocity)) * exposure_seconds
    num_moments = max(1, min(8, round(travel_px / 1.5)))
    offsets = ((np.arange(num_moments) + 0.5) / num_moments - 0.5) * exposure_seconds
    poses = [thing.pose(seconds + offset) for offset in offsets.tolist()]
    centres = np.array([pose.centre for pose in poses])
    reach = thing.sprite.width * 0.5 * 2**0.5 * max(pose.scale for pose in poses) + 1
    frame_size = (shot.width, shot.height)
    origin = np.floor((centres.min(axis=0) - reach).clip(0, frame_size)).astype(int)
    end = np.ceil((centres.max(axis=0) + reach).clip(0, frame_size)).astype(int)
    rgba = np.mean([_place(thing.sprite, pose, origin, end) for pose in poses], axis=0)
    area = float(np.asarray(thing.sprite.getchannel("A")).sum()) / 255
    whole_coverage = area * float(np.mean([pose.scale**2 for pose in poses]))
    return Patch(int(origin[0]), int(origin[1]), rgba[..., :3], rgba[..., 3], whole_coverage)


def _place(sprite: Image.Image, pose: Pose, origin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Field:
    """Return the sprite in its pose between two corners (x, y) of the frame: colour times coverage, coverage."""
    cos, sin = np.cos(pose.angle) / pose.scale, np.sin(pose.angle) / pose.scale
    x, y = pose.centre - origin
    middle = sprite.width / 2
    inverse = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    width, height = (end - origin).tolist()
    placed = sprite.transform((width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)
    rgba = np.asarray(placed).astype(np.float32)
    rgba[..., 3] /= 255
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


def _extent(patch: Patch, shown: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the corners, in pixels of the frame, around a patch's pixels (h, w) that show the thing."""
    columns, rows = np.flatnonzero(shown.any(axis=0)).tolist(), np.flatnonzero(shown.any(axis=1)).tolist()
    return patch.left + columns[0], patch.top + rows[0], patch.left + columns[-1] + 1, patch.top + rows[-1] + 1


def _is_crowd(patch: Patch, shown: npt.NDArray[np.bool_]) -> bool:
    """Whether too little of the thing shows to ask for it."""
    x1, y1, x2, y2 = _extent(patch, shown)
    visible = float(patch.coverage[shown].sum()) / patch.whole_coverage
    return visible < MIN_VISIBLE or min(x2 - x1, y2 - y1) < MIN_SIDE_PX
