"""Colours that people can tell apart, for the objects of an ontology."""

from __future__ import annotations

import colorsys
import functools

import numpy as np
from numpy.typing import NDArray

_HUES = 72
_LIGHTNESSES = (0.45, 0.35, 0.55, 0.65)  # neither black nor white: legible on a picture and under white text
_SATURATIONS = (0.9, 0.55)


@functools.cache
def distinct_colors(num: int) -> tuple[str, ...]:
    """Returns colours as `#RRGGBB`, each as different as possible from all before it.

    A longer list begins with the shorter one; colours repeat after 576. "Different" is the distance in Oklab
    (https://bottosson.github.io/posts/oklab), since steps of hue alone look alike among greens.

    >>> distinct_colors(3)
    ('#DA0B0B', '#25F425', '#0B0BDA')
    """
    rgb = np.array(
        [
            colorsys.hls_to_rgb(hue / _HUES, lightness, saturation)
            for saturation in _SATURATIONS
            for lightness in _LIGHTNESSES
            for hue in range(_HUES)
        ]
    )
    lab = _as_oklab(rgb)
    chosen = [0]
    distance = np.full(len(lab), np.inf)
    for _ in range(1, min(num, len(lab))):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    colors = ["#{:02X}{:02X}{:02X}".format(*np.rint(rgb[index] * 255).astype(int)) for index in chosen]
    return tuple(colors[number % len(colors)] for number in range(num))


def _as_oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns sRGB colours, (N, 3) in 0..1, in Oklab."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab
