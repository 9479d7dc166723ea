"""Boxes, labels and captions on pictures: for looking at, so legible comes first."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.label_map import LabelMap
from prelabel.data.masks import trace_mask
from prelabel.data.skeletons import Edge

TOLERANCE_PX = 0.75
"""How far a mask's drawn outline may lie from its edge."""
_AREA = 70  # of 255: how much of an area's colour is laid over the picture

Colour = tuple[int, int, int]
Ring = NDArray[np.float32]


def rings_of(geometry: Geometry) -> list[Ring]:
    """Returns the rings around a thing and around its holes, (K, 2) each, in pixels of the frame; none of keypoints."""
    match geometry:
        case Mask():
            traced = trace_mask(geometry, TOLERANCE_PX)
            return [] if traced is None else rings_of(traced)
        case Polygons(parts=parts):
            return [ring for rings in parts for ring in rings]
        case RotatedBox():
            return [geometry.corners]
        case Keypoints():
            return []


def draw_geometry(
    picture: Image.Image,
    geometry: Geometry,
    scale: NDArray[np.float64],
    colour: Colour,
    line_px: int,
    *,
    edges: Sequence[Edge] = (),
) -> None:
    """Draws a thing into the picture.

    Args:
        picture: RGB.
        geometry: in pixels of the frame.
        scale: (2,), pixels of the picture to one of the frame, across and down.
        colour: of lines and areas.
        line_px: width of lines.
        edges: between keypoints, by their numbers; drawn where both are seen.
    """
    rings = [ring * scale for ring in rings_of(geometry)]
    if rings:
        _draw_rings(picture, rings, colour, line_px)
    if isinstance(geometry, Keypoints):
        points = geometry.xy * scale
        for ends in seen_edges(geometry, edges):
            _draw_line(picture, points[list(ends)], colour, line_px)
        _draw_points(picture, points, geometry.confidence, colour, line_px)


def seen_edges(pose: Keypoints, edges: Sequence[Edge]) -> list[Edge]:
    """Returns the edges between points that are seen."""
    seen = pose.confidence >= SEEN_FROM
    return [(one, other) for one, other in edges if seen[one] and seen[other]]


def _draw_rings(picture: Image.Image, rings: list[NDArray[np.float64]], colour: Colour, line_px: int) -> None:
    left, top = (int(value) for value in np.floor(np.min([ring.min(axis=0) for ring in rings], axis=0)))
    right, bottom = (int(value) + 1 for value in np.ceil(np.max([ring.max(axis=0) for ring in rings], axis=0)))
    area = np.zeros((bottom - top, right - left), np.bool_)
    for ring in rings:
        inside = Image.new("1", (right - left, bottom - top))
        ImageDraw.Draw(inside).polygon([*map(tuple, (ring - (left, top)).tolist())], fill=1)
        area ^= np.asarray(inside)  # a hole is set twice
    picture.paste(colour, (left, top), Image.fromarray((area * _AREA).astype(np.uint8)))
    for ring in rings:
        _draw_line(picture, np.vstack([ring, ring[:1]]), colour, line_px)


def _draw_line(picture: Image.Image, points: NDArray[np.float64], colour: Colour, line_px: int) -> None:
    """Draws a line through points, with a dark edge, so that it stands out on any ground."""
    canvas = ImageDraw.Draw(picture, "RGBA")
    through = [*map(tuple, points.tolist())]
    canvas.line(through, fill=(0, 0, 0, 110), width=line_px + 2)
    canvas.line(through, fill=colour, width=line_px, joint="curve")


def _draw_points(
    picture: Image.Image,
    points: NDArray[np.float64],
    confidence: NDArray[np.float32],
    colour: Colour,
    line_px: int,
) -> None:
    """Draws those that are seen full, the others as circles."""
    canvas = ImageDraw.Draw(picture, "RGBA")
    reach = line_px * 2
    for (x, y), is_seen in zip(points.tolist(), (confidence >= SEEN_FROM).tolist(), strict=True):
        corners = (x - reach, y - reach, x + reach, y + reach)
        canvas.ellipse(corners, fill=colour if is_seen else None, outline=(0, 0, 0) if is_seen else colour)


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = NDArray[np.float64]
Corners = NDArray[np.float64]

DARK: Colour = (20, 22, 26)
LIGHT: Colour = (240, 242, 245)
MIN_FONT_PX = 12
MAX_LABEL_PART = 0.25
"""Of the picture's width: longer names are cut, unless the picture is small."""
MIN_LABEL_PX = 110
MAX_PLATES = 4096

# Pillow's own font has little beyond ASCII; Pillow looks these up where the system keeps its fonts.
WIDE_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "arial.ttf")


@dataclass(frozen=True)
class Pen:
    """Draws detections on pictures of one size.

    Attributes:
        label_map: from class ids to names and colours.
        width: pixels of the pictures.
        height: pixels of the pictures.
    """

    label_map: LabelMap
    width: int
    height: int
    _plates: dict[tuple[int, int, int], Image.Image] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def line_px(self) -> int:
        """Width of a box's line."""
        return max(2, round(math.sqrt(self.width * self.height) / 360))

    @property
    def font_px(self) -> int:
        """Height of the labels' font."""
        return font_px(self.width, self.height)

    def fitted(self, width: int, height: int) -> Pen:
        """Returns the pen for pictures of other proportions, scaled to lie within this one's."""
        scale = min(self.width / width, self.height / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        near = abs(size[0] - self.width) <= 2 and abs(size[1] - self.height) <= 2
        return self if near else Pen(self.label_map, *size)

    def draw(
        self,
        picture: Image.Image,
        xyxy: NDArray[np.float64],
        confidence: NDArray[np.float32],
        class_id: NDArray[np.int64],
        track_id: NDArray[np.int64] | None = None,
        *,
        geometry: NDArray[np.object_] | None = None,
        scale: NDArray[np.float64] | None = None,
    ) -> None:
        """Draws boxes, or what is known beyond them, and then labels into the picture, the least confident first.

        Args:
            picture: RGB.
            xyxy: (N, 4) corners in pixels of the picture.
            confidence: (N,) 0..1.
            class_id: (N,) of mapped classes.
            track_id: (N,), named on the labels; -1, or None for all: no track.
            geometry: object (N,), in pixels of the frame; None, or None for all: the box is all there is.
            scale: (2,), pixels of the picture to one of the frame, across and down; by default they are the same.
        """
        tracks = np.full(len(xyxy), -1) if track_id is None else track_id
        order = np.argsort(confidence, kind="stable")
        per_px = np.ones(2) if scale is None else scale
        canvas = ImageDraw.Draw(picture, "RGBA")
        for row in order.tolist():
            category, known = self.label_map.objects[class_id[row]], None if geometry is None else geometry[row]
            assert category is not None
            colour = parse_colour(category.color)
            if known is not None:
                draw_geometry(picture, known, per_px, colour, self.line_px, edges=category.skeleton_edges)
            if known is None or isinstance(known, Keypoints):  # points alone do not show what is whose
                self._draw_box(canvas, xyxy[row], colour, self.line_px if known is None else 1)
        columns = (class_id[order[::-1]], confidence[order[::-1]], tracks[order[::-1]])
        plates = [self._plate(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
        known_of = [None] * len(order) if geometry is None else geometry[order[::-1]]
        turned = [known.corners * per_px if isinstance(known, RotatedBox) else None for known in known_of]
        places = self._place(xyxy[order[::-1]], turned, plates)
        for plate, place in zip(reversed(plates), reversed(places), strict=True):
            picture.paste(plate, place)

    def _draw_box(self, canvas: ImageDraw.ImageDraw, box: Box, colour: Colour, line_px: int) -> None:
        x1, y1 = (int(value) for value in np.floor(box[:2]))
        x2, y2 = max(int(np.ceil(box[2])) - 1, x1), max(int(np.ceil(box[3])) - 1, y1)
        canvas.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0, 110))
        canvas.rectangle((x1, y1, x2, y2), outline=colour, width=line_px)

    def _plate(self, class_id: int, confidence: float, track_id: int) -> Image.Image:
        key = (class_id, round(confidence * 100), track_id)
        if key not in self._plates:
            if len(self._plates) >= MAX_PLATES:  # tracks are without number in a long video
                self._plates.clear()
            category = self.label_map.objects[class_id]
            assert category is not None
            room = min(max(self.width * MAX_LABEL_PART, MIN_LABEL_PX), self.width - self.font_px)
            track = f" #{track_id}" if track_id >= 0 else ""
            measured = f" {key[1] / 100:.2f}" if key[1] else ""  # nothing was measured for a box that was filled in
            text = fit_text(category.name, track + measured, self.font_px, room)
            self._plates[key] = text_plate(text, self.font_px, colour_of(self.label_map, class_id))
        return self._plates[key]

    def _place(
        self, boxes: NDArray[np.float64], turned: Sequence[Corners | None], plates: list[Image.Image]
    ) -> list[tuple[int, int]]:
        """Returns where the plates go, top left: each where it hides the least of those before it.

        Args:
            boxes: (N, 4) in pixels of the picture.
            turned: the corners of each that is turned.
            plates: N.
        """
        taken = np.zeros((len(plates), 4))
        places = []
        for number, (box, ring, plate) in enumerate(zip(boxes, turned, plates, strict=True)):
            wanted = _beside(box, *plate.size) if ring is None else _beside_turned(ring, *plate.size)
            corners = np.clip(wanted, 0, np.maximum([self.width - plate.width, self.height - plate.height], 0))
            rectangles = np.hstack([corners, corners + np.array(plate.size)])
            best = int(np.argmin(_hidden_px(rectangles, taken[:number])))
            taken[number] = rectangles[best]
            places.append((int(corners[best, 0]), int(corners[best, 1])))
        return places


def _beside(box: Box, width: int, height: int) -> NDArray[np.float64]:
    """Returns top left corners, (6, 2), for a plate at a box, the preferred first: above, below, within it."""
    x1, y1, x2, y2 = np.floor(box)
    right, above, below = x2 - width, y1 - height, y2 + 1
    return np.array([[x1, above], [right, above], [x1, below], [right, below], [x1, y1], [x1, y2 - height]])


def _beside_turned(corners: Corners, width: int, height: int) -> NDArray[np.float64]:
    """Returns top left corners, (5, 2), for a plate at a turned box: its corners, the highest first, and within it."""
    (top_x, top_y), (low_x, low_y) = corners[corners[:, 1].argmin()], corners[corners[:, 1].argmax()]
    (left_x, left_y), (right_x, right_y) = corners[corners[:, 0].argmin()], corners[corners[:, 0].argmax()]
    x, y = corners.mean(axis=0)
    above = [top_x if top_x <= x else top_x - width, top_y - height]
    below = [low_x if low_x <= x else low_x - width, low_y + 1]
    half = height / 2
    beside = [[right_x + 1, right_y - half], [left_x - width - 1, left_y - half], [x - width / 2, y - half]]
    places: NDArray[np.float64] = np.floor(np.array([above, below, *beside]))
    return places


def colour_of(label_map: LabelMap, class_id: int) -> Colour:
    """Returns the ontology object's colour."""
    category = label_map.objects[class_id]
    return parse_colour(category.color) if category is not None else LIGHT


def parse_colour(text: str) -> Colour:
    """Returns red, green and blue of `#RRGGBB`; light grey where it is of another form.

    >>> parse_colour("#FF8000")
    (255, 128, 0)
    """
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))[:3]
    except ValueError:
        return LIGHT
    return red, green, blue


def contrasting(colour: Colour) -> Colour:
    """Returns dark or light, whichever text is easier to read in on the colour.

    Luminance and threshold are those of WCAG 2: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance.

    >>> contrasting((255, 255, 0)) == DARK, contrasting((0, 0, 160)) == LIGHT
    (True, True)
    """
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return DARK if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.179 else LIGHT


def font_px(width: int, height: int) -> int:
    """Returns the font height for pictures of a size in pixels."""
    return max(MIN_FONT_PX, round(math.sqrt(width * height) / 62))


def text_plate(text: str, size_px: int, colour: Colour) -> Image.Image:
    """Returns text on a plate of the colour."""
    font = find_font(text, size_px)
    left, top, right, bottom = font.getbbox(text)
    pad = max(2, size_px // 5)
    ascent = font.getbbox("Ag")
    height = int(max(bottom, ascent[3]) - min(top, ascent[1])) + 2 * pad
    plate = Image.new("RGB", (int(right - left) + 2 * pad, height), colour)
    ImageDraw.Draw(plate).text((pad - left, pad - min(top, ascent[1])), text, font=font, fill=contrasting(colour))
    return plate


def draw_caption(picture: Image.Image, text: str) -> None:
    """Draws text on a dark plate into the picture's lower left corner."""
    size_px = font_px(*picture.size)
    plate = text_plate(text, size_px, DARK)
    picture.paste(plate, (0, picture.height - plate.height), Image.new("L", plate.size, 200))


def text_width(text: str, size_px: int) -> float:
    """Returns the pixels that the text takes."""
    return find_font(text, size_px).getlength(text)


def fit_text(text: str, ending: str, size_px: int, width: float) -> str:
    """Returns `text` and `ending`, `text` cut short by an ellipsis where both take more than `width` pixels."""
    shown = readable(text)
    if text_width(shown + ending, size_px) <= width:
        return shown + ending
    for length in range(len(shown) - 1, 0, -1):
        cut = shown[:length].rstrip() + "…" + ending
        if text_width(cut, size_px) <= width:
            return cut
    return ending.strip()


@lru_cache(maxsize=4096)
def find_font(text: str, size_px: int) -> Font:
    """Returns Pillow's own font, or one of the system's where the text has letters that it lacks."""
    return _load(_font_name(text), size_px)


def readable(text: str) -> str:
    """Returns the text in one line; a letter that no font at hand has loses its accents."""
    line = " ".join(text.split())
    missing = _missing_letters(_font_name(line), line)
    return "".join(_without_accents(letter) if letter in missing else letter for letter in line)


def _without_accents(letter: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))


def _font_name(text: str) -> str:
    """Returns the first of the fonts that lack the fewest of the text's letters; empty: Pillow's own."""
    if not _missing_letters("", text):
        return ""
    return min(("", *WIDE_FONTS), key=lambda name: len(_missing_letters(name, text)))


@lru_cache(maxsize=4096)
def _missing_letters(name: str, text: str) -> frozenset[str]:
    try:
        font = _load(name, MIN_FONT_PX)
    except OSError:  # this system does not have it
        return frozenset(text)
    empty_box = bytes(font.getmask("\uffff"))
    return frozenset(letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == empty_box)


@lru_cache
def _load(name: str, size_px: int) -> Font:
    return ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size_px)


def _hidden_px(rectangles: NDArray[np.float64], taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the area, (C,), that each rectangle shares with those that are taken."""
    top_left = np.maximum(rectangles[:, None, :2], taken[None, :, :2])
    bottom_right = np.minimum(rectangles[:, None, 2:], taken[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0, None)
    shared: NDArray[np.float64] = (sides[..., 0] * sides[..., 1]).sum(axis=1)
    return shared
