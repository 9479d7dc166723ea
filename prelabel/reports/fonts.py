"""Text in images: fonts, labels on a coloured ground, names cut to a width."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
"""Red, green, blue: 0..255."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

DARK: Colour = (20, 22, 26)
LIGHT: Colour = (240, 242, 245)
MIN_FONT_PX = 12
# Pillow's own font has little beyond ASCII. Pillow finds these where the system keeps its fonts.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "arial.ttf")


def contrasting(colour: Colour) -> Colour:
    """Returns the text colour, dark or light, that is easier to read on a colour.

    Luminance and threshold are those of WCAG 2: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance.

    >>> contrasting((255, 255, 0)) == DARK, contrasting((0, 0, 160)) == LIGHT
    (True, True)
    """
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return DARK if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.179 else LIGHT


def font_px(width: int, height: int) -> int:
    """Returns the font height for an image of a size in pixels."""
    return max(MIN_FONT_PX, round(math.sqrt(width * height) / 62))


def draw_label(text: str, size_px: int, colour: Colour) -> Image.Image:
    """Returns an image of the text on the colour."""
    font = find_font(text, size_px)
    left, top, right, bottom = font.getbbox(text)
    pad = max(2, size_px // 5)
    line = font.getbbox("Ag")  # labels of all texts are equally high
    top, bottom = min(top, line[1]), max(bottom, line[3])
    label = Image.new("RGB", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), colour)
    ImageDraw.Draw(label).text((pad - left, pad - top), text, font=font, fill=contrasting(colour))
    return label


def text_width(text: str, size_px: int) -> float:
    """Returns the width of the text in pixels."""
    return find_font(text, size_px).getlength(text)


def fit_text(text: str, ending: str, size_px: int, width: float) -> str:
    """Returns `text` and `ending` in one line, with `text` cut to keep both within `width` pixels."""
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
    """Returns Pillow's own font, or a system font where the text has letters that Pillow's font lacks."""
    return _load_font(_font_name(text), size_px)


def _drop_unknown_accents(line: str) -> str:
    """Returns the line with accents removed from letters that no installed font has."""
    missing = _missing_letters(_font_name(line), line)
    plain = {
        letter: "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
        for letter in missing
    }
    return "".join(plain.get(letter, letter) for letter in line)


def _font_name(text: str) -> str:
    """Returns the font that lacks the fewest letters of the text; empty: Pillow's own."""
    if not _missing_letters("", text):
        return ""
    return min(("", *SYSTEM_FONTS), key=lambda name: len(_missing_letters(name, text)))


@lru_cache(maxsize=4096)
def _missing_letters(name: str, text: str) -> frozenset[str]:
    try:
        font = _load_font(name, MIN_FONT_PX)
    except OSError:  # this system does not have it
        return frozenset(text)
    empty_box = bytes(font.getmask("\uffff"))  # fonts draw the same box for every letter that they lack
    return frozenset(letter for letter in text if not letter.isspace() and bytes(font.getmask(letter)) == empty_box)


@lru_cache
def _load_font(name: str, size_px: int) -> Font:
    return ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size_px)
