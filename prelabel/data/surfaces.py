"""Video frames as a hardware decoder outputs them, and their conversion to RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

# Weights of red and blue in the brightness (ITU-T H.273, table 4). FFmpeg takes BT.601 if the file does not say.
_BT_601 = (0.299, 0.114)
RED_AND_BLUE = {
    "bt709": (0.2126, 0.0722),
    "bt470bg": _BT_601,
    "smpte170m": _BT_601,
    "unknown": _BT_601,
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
"""By FFmpeg's names of colour matrices: those that `Surfaces` converts."""
P010_SHIFT = 6  # P010 stores its 10 bits at the top of 16


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of eight orientations of an image: an optional transpose, then optional mirrors.

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
        """Clockwise rotation: 0, 90, 180 or 270; for a mirrored image, the rotation without the mirror."""
        if self.transpose:
            return 270 if self.mirror_y else 90
        return 180 if self.mirror_x and self.mirror_y else 0

    @property
    def is_mirrored(self) -> bool:
        """Whether the image is mirrored, so that text in the stored frame reads backwards."""
        return (self.transpose + self.mirror_x + self.mirror_y) % 2 == 1

    def displayed_size(self, width: int, height: int) -> tuple[int, int]:
        """Returns the displayed width and height of an image stored as `width` x `height`."""
        return (height, width) if self.transpose else (width, height)

    def filters(self) -> list[tuple[str, str]]:
        """Returns the FFmpeg filters (name, arguments) that bring the image into display orientation."""
        chain = [("transpose", "cclock_flip")] if self.transpose else []
        chain += [("hflip", "")] if self.mirror_x else []
        return chain + ([("vflip", "")] if self.mirror_y else [])


class ColorMatrix(NamedTuple):
    """Converts brightness Y and colours Cb, Cr to RGB, in integers, so that all devices return the same pixels.

    With y = (Y - black) * brightness, b = Cb - neutral and r = Cr - neutral, red is y + r * red_cr, green is
    y + b * green_cb + r * green_cr, and blue is y + b * blue_cb. The fraction of each product is dropped, as in
    FFmpeg's code for x86 (libswscale/x86/yuv_2_rgb.asm), so 8 bits become the same pixels there.

    Attributes:
        bits: a factor is an integer in units of 1 / 2**bits.
    """

    bits: int
    black: int
    neutral: int
    brightness: int
    red_cr: int
    green_cb: int
    green_cr: int
    blue_cb: int

    @classmethod
    def of(cls, color_space: str, *, is_full_range: bool, bits: int) -> ColorMatrix:
        """Returns the matrix of ITU-T H.273, 8.3.

        Args:
            color_space: a key of `RED_AND_BLUE`.
            is_full_range: whether brightness is 0..255 rather than 16..235, for 8 bits.
            bits: of a sample.
        """
        red, blue = RED_AND_BLUE[color_space]
        green, unit = 1 - red - blue, 1 << (bits - 8)
        black, luma, chroma = (0, *[(1 << bits) - 1] * 2) if is_full_range else (16 * unit, 219 * unit, 224 * unit)
        to_red, to_blue = 2 * (1 - red) * 255 / chroma, 2 * (1 - blue) * 255 / chroma
        factors = (255 / luma, to_red, -to_blue * blue / green, -to_red * red / green, to_blue)
        bits_of_factor = 13 + bits - 8
        return cls(bits_of_factor, black, 128 * unit, *(round(factor * (1 << bits_of_factor)) for factor in factors))


@dataclass(frozen=True, slots=True, eq=False)
class Surfaces:
    """Frames as a hardware decoder outputs them: in NV12, or in P010 for 10 bits.

    Attributes:
        planes: (N, H * 3 / 2, W), on any device: for each frame as stored in the file, H rows of brightness, then H / 2
            rows of interleaved Cb and Cr. uint8 for NV12; uint16 for P010, which uses the upper 10 bits.
        color_space: FFmpeg's name of the colour matrix, a key of `RED_AND_BLUE`.
        is_full_range: whether brightness is 0..255 rather than 16..235.
        orientation: how a stored frame is rotated and mirrored for display.
    """

    planes: torch.Tensor
    color_space: str
    is_full_range: bool
    orientation: Orientation = Orientation()

    def __post_init__(self) -> None:
        shape = tuple(self.planes.shape)
        if len(shape) != 3 or shape[1] % 3 or shape[2] % 2:
            raise ValueError(f"planes: got shape {shape}, expected (N, H * 3 / 2, W) with even H and W")
        if str(self.planes.dtype) not in ("torch.uint8", "torch.uint16"):
            raise ValueError(f"planes: got {self.planes.dtype}, expected uint8 for NV12 or uint16 for P010")
        if self.color_space not in RED_AND_BLUE:
            raise ValueError(f"color_space: got {self.color_space!r}, expected one of {', '.join(RED_AND_BLUE)}")

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, place: slice) -> Surfaces:
        return replace(self, planes=self.planes[place])

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of a frame as stored, in pixels."""
        return self.planes.shape[1] * 2 // 3, self.planes.shape[2]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, height, width and channels of the frames as displayed in RGB."""
        height, width = self.stored_size
        width, height = self.orientation.displayed_size(width, height)
        return len(self), height, width, 3

    @property
    def device(self) -> torch.device:
        """Where the planes are."""
        return self.planes.device

    @property
    def is_p010(self) -> bool:
        """Whether a sample has 10 bits rather than 8."""
        return bool(self.planes.element_size() == 2)

    @property
    def matrix(self) -> ColorMatrix:
        """The conversion of a sample to RGB."""
        return ColorMatrix.of(self.color_space, is_full_range=self.is_full_range, bits=10 if self.is_p010 else 8)

    def rgb(self) -> torch.Tensor:
        """Returns the displayed frames, uint8 RGB (N, H, W, 3), on the same device.

        With 8 bits they are FFmpeg's. With 10 bits, FFmpeg interpolates colours between rows, and differs by up to 11
        grey levels at sharp edges of a colour.
        """
        import torch

        rows, columns = (torch.arange(side, device=self.device) for side in self.shape[1:3])
        frames = torch.empty(self.shape, dtype=torch.uint8, device=self.device)
        for number in range(len(self)):  # the steps in between take eight times the memory of a frame
            frames[number] = self[number : number + 1].pixels(rows, columns)[0]
        return frames

    def pixels(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Returns the displayed frames' pixels where some rows and columns meet, uint8 RGB (N, R, C, 3).

        Like FFmpeg, it uses one colour sample for each 2 by 2 pixels.

        Args:
            rows: int64 (R,), on the device, counted from the top of the displayed frame.
            columns: int64 (C,), on the device, counted from its left.
        """
        import torch

        height, width = self.stored_size
        luma, chroma = self.planes[:, :height], self.planes[:, height:].view(-1, height // 2, width // 2, 2)
        if self.orientation.transpose:
            luma, chroma = luma.transpose(1, 2), chroma.transpose(1, 2)
        rows = self.shape[1] - 1 - rows if self.orientation.mirror_y else rows
        columns = self.shape[2] - 1 - columns if self.orientation.mirror_x else columns
        luma = luma.index_select(1, rows).index_select(2, columns).int()
        chroma = chroma.index_select(1, rows // 2).index_select(2, columns // 2).int()
        if self.is_p010:
            luma, chroma = luma >> P010_SHIFT, chroma >> P010_SHIFT
        matrix = self.matrix

        def times(values: torch.Tensor, factor: int) -> torch.Tensor:
            return (values * factor) >> matrix.bits

        y = times(luma - matrix.black, matrix.brightness)
        cb, cr = (chroma - matrix.neutral).unbind(-1)
        green = y + times(cb, matrix.green_cb) + times(cr, matrix.green_cr)
        rgb = torch.stack((y + times(cr, matrix.red_cr), green, y + times(cb, matrix.blue_cb)), dim=-1)
        return rgb.clamp_(0, 255).to(torch.uint8)
