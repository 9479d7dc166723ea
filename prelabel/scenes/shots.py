"""Shots: moving things before a drifting background, rendered at any moment together with what is visible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from prelabel.scenes.backgrounds import draw_background
from prelabel.scenes.sprites import CLASS_NAMES, DISTRACTOR_NAMES, Field, draw_sprite

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
