"""Draws detections on frames. Labels go to the places where they hide the least."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from prelabel.data.detections import Detections
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.label_map import LabelMap
from prelabel.data.masks import trace_mask
from prelabel.data.ontology import OntologyObject

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

DARK: Colour = (20, 22, 26)
LIGHT: Colour = (240, 242, 245)
MIN_FONT_PX = 12
# Pillow's own font has few letters beyond ASCII. Pillow searches the system's font folders for these.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "arial.ttf")


def contrasting(colour: Colour) -> Colour:
    """Returns the text colour, dark or light, that is easier to read on a colour.

    Luminance and threshold are from WCAG 2: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance.

    >>> contrasting((255, 255, 0)) == DARK, contrasting((0, 0, 160)) == LIGHT
    (True, True)
    """
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return DARK if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.179 else LIGHT


def font_px(width: int, height: int) -> int:
    """Returns the font height in pixels for an image of this size in pixels."""
    return max(MIN_FONT_PX, round(math.sqrt(width * height) / 62))


def draw_label(text: str, size_px: int, colour: Colour) -> Image.Image:
    """Returns an image of the text on a ground of the colour."""
    font = find_font(text, size_px)
    left, top, right, bottom = font.getbbox(text)
    pad = max(2, size_px // 5)
    line = font.getbbox("Ag")  # so that all labels have the same height
    top, bottom = min(top, line[1]), max(bottom, line[3])
    label = Image.new("RGB", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), colour)
    ImageDraw.Draw(label).text((pad - left, pad - top), text, font=font, fill=contrasting(colour))
    return label


def text_width(text: str, size_px: int) -> float:
    """Returns the width of the text in pixels."""
    return find_font(text, size_px).getlength(text)


def fit_text(text: str, ending: str, size_px: int, width: float) -> str:
    """Returns `text` and `ending` in one line; `text` is cut so that both fit into `width` pixels."""
    shown = _drop_unknown_accents(" ".join(text.split()))
    if text_width(shown + ending, size_px) <= width:
        return shown + ending
    for length in range(len(shown) - 1, 0, -1):
        cut = shown[:length].rstrip() + "…" + ending
        if text_width(cut, size_px) <= width:
            return cut
    return ending.strip()


@lru_cache(maxsize=4096)
def find_font(text: str, size_px: int) -> Font:
    """Returns Pillow's own font, or a system font if Pillow's lacks letters of the text."""
    return _load_font(_font_name(text), size_px)


def _drop_unknown_accents(line: str) -> str:
    """Returns the line without the accents of letters that no installed font has."""
    missing = _missing_letters(_font_name(line), line)
    plain = {
        letter: "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
        for letter in missing
    }
    return "".join(plain.get(letter, letter) for letter in line)


def _font_name(text: str) -> str:
    """Returns the name of the font that lacks the fewest letters of the text; Pillow's own font is empty text."""
    if not _missing_letters("", text):
        return ""
    return min(("", *SYSTEM_FONTS), key=lambda name: len(_missing_letters(name, text)))


@lru_cache(maxsize=4096)
def _missing_letters(name: str, text: str) -> frozenset[str]:
    try:
        font = _load_font(name, MIN_FONT_PX)
    except OSError:  # the font is not installed
        return frozenset(text)
    empty_box = bytes(font.getmask("\uffff"))  # fonts draw the same box for every letter that they lack
    return frozenset(letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == empty_box)


@lru_cache
def _load_font(name: str, size_px: int) -> Font:
    return ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size_px)


OUTLINE_TOLERANCE_PX = 0.75
"""The largest distance of a mask's drawn outline from the mask's edge."""
MASK_OPACITY = 0.28
MAX_LABEL_PART = 0.25
"""The longest label as a part of the image's width; `MIN_LABEL_PX` are always allowed."""
MIN_LABEL_PX = 110
MAX_CACHED_LABELS = 4096


@dataclass(frozen=True)
class FrameAnnotator:
    """Scales frames to fit into one size, and draws detections on them.

    Attributes:
        label_map: from class ids to names and colours.
        width: largest width of the drawn images, in pixels.
        height: largest height of the drawn images, in pixels.
    """

    label_map: LabelMap
    width: int
    height: int
    _labels: dict[tuple[object, ...], Image.Image] = field(default_factory=dict, init=False, repr=False, compare=False)

    def annotate(
        self, frame: NDArray[np.uint8], detections: Detections, track_id: NDArray[np.int64] | None = None
    ) -> Image.Image:
        """Returns the scaled frame with shapes and labels, the most confident ones on top.

        Args:
            frame: (H, W, 3) RGB; not written to.
            detections: in pixels of the frame; every class is mapped.
            track_id: (N,) int64, shown on the labels; -1 for a box without a track. By default, no box has a track.
        """
        size = self._fit(frame.shape[1], frame.shape[0])
        scale = np.array(size) / (frame.shape[1], frame.shape[0])
        image = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
        if len(detections):
            image = _draw_shapes(image, detections, self.label_map, scale)
            self._draw_labels(image, detections, track_id, scale)
        return image

    def _fit(self, width: int, height: int) -> tuple[int, int]:
        scale = min(self.width / width, self.height / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        # The sides of a clip are even numbers. A scaled frame that is nearly as large fills the clip without a border.
        is_near = abs(size[0] - self.width) <= 2 and abs(size[1] - self.height) <= 2
        return (self.width, self.height) if is_near else size

    def _draw_labels(
        self, image: Image.Image, found: Detections, track_id: NDArray[np.int64] | None, scale: NDArray[np.float64]
    ) -> None:
        """Places the labels from the most confident to the least, then pastes them in the opposite order."""
        taken, placed = np.zeros((0, 4)), []
        for row in np.argsort(-found.confidence, kind="stable").tolist():
            track = -1 if track_id is None else int(track_id[row])
            label = self._label(int(found.class_id[row]), float(found.confidence[row]), track, image.size)
            geometry = found.geometry[row]
            if isinstance(geometry, RotatedBox):
                wanted = _places_at_rotated_box(geometry.corners * scale, *label.size)
            else:
                wanted = _places_at_box(found.xyxy[row] * np.tile(scale, 2), *label.size)
            corners = np.clip(wanted, 0, np.maximum(np.array(image.size) - label.size, 0))
            boxes = np.hstack([corners, corners + label.size])
            best = boxes[np.argmin(_hidden_px(boxes, taken))]
            taken = np.vstack([taken, best])
            placed.append((label, (int(best[0]), int(best[1]))))
        for label, place in reversed(placed):
            image.paste(label, place)

    def _label(self, class_id: int, confidence: float, track_id: int, size: tuple[int, int]) -> Image.Image:
        key = (class_id, round(confidence * 100), track_id, size)
        if key not in self._labels:
            if len(self._labels) >= MAX_CACHED_LABELS:  # the number of tracks of a long video has no bound
                self._labels.clear()
            category = self.label_map.objects[class_id]
            name, colour = ("", LIGHT) if category is None else (category.name, category.rgb)
            text_px = font_px(*size)
            max_width = min(max(size[0] * MAX_LABEL_PART, MIN_LABEL_PX), size[0] - text_px)
            ending = f" #{track_id}" if track_id >= 0 else ""
            ending += f" {confidence:.2f}" if round(confidence * 100) else ""  # 0 means filled in, not measured
            self._labels[key] = draw_label(fit_text(name, ending, text_px, max_width), text_px, colour)
        return self._labels[key]


def draw_caption(image: Image.Image, text: str) -> None:
    """Draws text on a dark ground in the image's lower left corner."""
    label = draw_label(text, font_px(*image.size), DARK)
    image.paste(label, (0, image.height - label.height), Image.new("L", label.size, 200))


def geometry_rings(geometry: Geometry) -> list[NDArray[np.float32]]:
    """Returns the rings around a thing and its holes, each (K, 2) in pixels of the frame; none for keypoints."""
    match geometry:
        case Mask():
            traced = trace_mask(geometry, OUTLINE_TOLERANCE_PX)
            return [] if traced is None else geometry_rings(traced)
        case Polygons(parts=parts):
            return [ring for rings in parts for ring in rings]
        case RotatedBox():
            return [geometry.corners]
        case Keypoints():
            return []


def _draw_shapes(image: Image.Image, found: Detections, label_map: LabelMap, scale: NDArray[np.float64]) -> Image.Image:
    """Returns the image with each detection's geometry drawn on it.

    A detection without geometry gets its box. Keypoints get a thin box around them.
    """
    line_px = max(2, round(math.sqrt(image.width * image.height) / 360))
    scene = np.array(image)
    for row in np.argsort(found.confidence, kind="stable").tolist():
        category = label_map.categories[label_map.category_index[found.class_id[row]]]
        box, geometry = found.xyxy[row] * np.tile(scale, 2), found.geometry[row]
        match geometry:
            case Mask() | Polygons():
                _draw_area(scene, geometry_rings(geometry), scale, category.rgb, line_px)
            case RotatedBox():
                _draw_ring(scene, geometry.corners * scale, category.rgb, line_px)
            case Keypoints():
                _draw_skeleton(scene, geometry, scale, category, line_px)
                _draw_box(scene, box, category.rgb, 1)
            case _:
                _draw_box(scene, box, category.rgb, line_px)
    return Image.fromarray(scene)


def _draw_box(scene: NDArray[np.uint8], box: NDArray[np.float64], colour: Colour, line_px: int) -> None:
    import cv2

    # OpenCV draws a line centred on its coordinates. So move it inwards, to stay within the box and the image.
    x1, y1, x2, y2 = (box + np.array([1, 1, -1, -1]) * (line_px // 2) - [0, 0, 1, 1]).astype(int).tolist()
    cv2.rectangle(scene, (x1, y1), (x2, y2), colour, line_px)


def _draw_ring(scene: NDArray[np.uint8], ring: NDArray[np.float64], colour: Colour, line_px: int) -> None:
    import cv2

    cv2.polylines(scene, [np.round(ring).astype(np.int32)], isClosed=True, color=colour, thickness=line_px)


def _draw_area(
    scene: NDArray[np.uint8],
    rings: Sequence[NDArray[np.float32]],
    scale: NDArray[np.float64],
    colour: Colour,
    line_px: int,
) -> None:
    """Draws the rings, and tints the pixels that lie within an odd number of them; so holes stay as they are."""
    import cv2

    filled = np.zeros(scene.shape[:2], np.bool_)
    for ring in rings:
        inside = cv2.fillPoly(np.zeros(scene.shape[:2], np.uint8), [np.round(ring * scale).astype(np.int32)], 1)
        filled ^= inside.astype(np.bool_)
    scene[filled] = np.round(scene[filled] * (1 - MASK_OPACITY) + np.array(colour) * MASK_OPACITY)
    for ring in rings:
        _draw_ring(scene, ring * scale, colour, line_px)


def _draw_skeleton(
    scene: NDArray[np.uint8], pose: Keypoints, scale: NDArray[np.float64], category: OntologyObject, line_px: int
) -> None:
    """Draws the points that are seen, and the edges between them."""
    import cv2

    points, is_seen = (pose.xy * scale).astype(int).tolist(), pose.confidence >= SEEN_FROM
    for one, other in category.skeleton_edges:
        if is_seen[one] and is_seen[other]:
            cv2.line(scene, points[one], points[other], category.rgb, line_px)
    for row in np.flatnonzero(is_seen).tolist():
        cv2.circle(scene, points[row], 2 * line_px, category.rgb, thickness=-1)


def _places_at_box(box: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Returns the places for a label at a box, the best first, as top left corners, (6, 2).

    They are above, below and inside the box.
    """
    x1, y1, x2, y2 = np.floor(box)
    right, above, below = x2 - width, y1 - height, y2 + 1
    return np.array([[x1, above], [right, above], [x1, below], [right, below], [x1, y1], [x1, y2 - height]])


def _places_at_rotated_box(corners: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Returns the places for a label at a rotated box, the best first, as top left corners, (5, 2).

    They are at the box's four corners and at its centre.
    """
    (top_x, top_y), (low_x, low_y) = corners[corners[:, 1].argmin()], corners[corners[:, 1].argmax()]
    (left_x, left_y), (right_x, right_y) = corners[corners[:, 0].argmin()], corners[corners[:, 0].argmax()]
    x, y = corners.mean(axis=0)
    above = [top_x if top_x <= x else top_x - width, top_y - height]
    below = [low_x if low_x <= x else low_x - width, low_y + 1]
    half = height / 2
    sides = [[right_x + 1, right_y - half], [left_x - width - 1, left_y - half], [x - width / 2, y - half]]
    places: NDArray[np.float64] = np.floor(np.array([above, below, *sides]))
    return places


def _hidden_px(boxes: NDArray[np.float64], taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the area of earlier labels that a label would hide at each of C places, (C,)."""
    top_left = np.maximum(boxes[:, None, :2], taken[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], taken[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0, None)
    shared: NDArray[np.float64] = (sides[..., 0] * sides[..., 1]).sum(axis=1)
    return shared
