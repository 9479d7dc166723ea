"""How a stored picture is turned and mirrored to be displayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Orientation:
    """Transpose, then mirror: the eight ways to lay a picture down.

    Attributes:
        transpose: swap x and y first.
        mirror_x: then mirror left and right.
        mirror_y: then mirror top and bottom.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: Sequence[int]) -> Orientation:
        """Returns the orientation nearest to a display matrix (ISO/IEC 14496-12, 6.2.2).

        Args:
            matrix: nine numbers a b u c d v x y w; a stored point (x, y) is shown at (ax + cy, bx + dy).

        >>> Orientation.from_display_matrix([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]).rotation_degrees
        90
        """
        a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
        return cls(mirror_x=a < 0, mirror_y=d < 0)

    @property
    def rotation_degrees(self) -> int:
        """Clockwise turn: 0, 90, 180 or 270; a mirrored picture counts as the turn that is left without its mirror."""
        if self.transpose:
            return 270 if self.mirror_y else 90
        return 180 if self.mirror_x and self.mirror_y else 0

    @property
    def is_mirrored(self) -> bool:
        """Whether writing in the picture would read backwards without the mirror."""
        return (self.transpose + self.mirror_x + self.mirror_y) % 2 == 1

    def displayed_size(self, width: int, height: int) -> tuple[int, int]:
        """Returns width and height as displayed, of a picture stored as `width` x `height`."""
        return (height, width) if self.transpose else (width, height)

    def filters(self) -> list[tuple[str, str]]:
        """Returns FFmpeg's filters, name and arguments, that lay the picture as displayed."""
        chain = [("transpose", "cclock_flip")] if self.transpose else []
        chain += [("hflip", "")] if self.mirror_x else []
        return chain + ([("vflip", "")] if self.mirror_y else [])
