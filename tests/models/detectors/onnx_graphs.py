"""Small ONNX graphs with the inputs and outputs of known tools. They find the red rectangle of a frame."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

SIDE = 64
NUM_CELLS = 84  # of 64 x 64 pixels, at strides 8, 16 and 32
NUM_CLASSES = 3
RED = 204
CONFIDENCE = RED / 255
RECTANGLE = (96, 32, 160, 96)  # on whole pixels of the input, too
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def red_frames(num: int = 2, height: int = 128, width: int = 256) -> np.ndarray:
    """Returns uint8 (num, height, width, 3): a red rectangle on black, 8 pixels lower in each frame."""
    frames = np.zeros((num, height, width, 3), np.uint8)
    x1, y1, x2, y2 = RECTANGLE
    for number, frame in enumerate(frames):
        frame[y1 + 8 * number : y2 + 8 * number, x1:x2, 0] = RED
    return frames


class Finder(torch.nn.Module):
    """Returns the corners of the red rectangle in pixels of the input (N, 4), and how red it is (N,).

    Args:
        red: index of the red channel.
        unit: the value of a full channel.
        imagenet: whether the input is normalised by ImageNet's statistics.
    """

    def __init__(self, red: int = 0, unit: float = 1.0, *, imagenet: bool = False) -> None:
        super().__init__()
        self.red, self.unit, self.imagenet = red, unit, imagenet

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.imagenet:
            mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
            image = image * std + mean
        redness = (image[:, self.red] - image[:, 1]) / self.unit  # of grey padding: 0
        is_red = (redness > 0.4).float()
        columns, rows = is_red.amax(dim=1), is_red.amax(dim=2)
        ends = [
            columns.argmax(dim=1).float(),
            rows.argmax(dim=1).float(),
            columns.shape[1] - columns.flip(1).argmax(dim=1).float(),
            rows.shape[1] - rows.flip(1).argmax(dim=1).float(),
        ]
        return torch.stack(ends, dim=1), redness.amax(dim=(1, 2))


def centres(corners: torch.Tensor) -> torch.Tensor:
    return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)


def place(row: torch.Tensor, index: int, num: int, filler: float = 0.0) -> torch.Tensor:
    """Returns (N, num, K) with the row (N, K) at one index, and the filler elsewhere."""
    mask = torch.zeros(1, num, 1)
    mask[:, index] = 1
    return row[:, None] * mask + filler * (1 - mask)


class Yolo(torch.nn.Module):
    """The outputs of the YOLO family. The rectangle is of class 1, and a second box on it of class 1 too.

    Args:
        form: yolov5, yolov8, yolox, yolox-raw or yolov10.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.finder = Finder(2, 255) if "yolox" in form else Finder()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corners, confidence = self.finder(images)
        box, one = centres(corners), torch.ones_like(confidence)
        if self.form == "yolov10":
            return place(torch.cat([corners, confidence[:, None], one[:, None]], dim=1), 17, 30)
        classes = torch.stack([0.1 * one, confidence, 0.05 * one], dim=1)
        weaker = torch.stack([0.05 * one, 0.9 * confidence, 0.05 * one], dim=1)
        if self.form == "yolov8":
            rows = [torch.cat([box, scores], dim=1) for scores in (classes, weaker)]
            return (place(rows[0], 40, NUM_CELLS) + place(rows[1], 9, NUM_CELLS)).transpose(1, 2)
        num = NUM_CELLS * 3 if self.form == "yolov5" else NUM_CELLS
        half = torch.stack([0.5 * one, 2 * confidence, 0.5 * one], dim=1)  # objectness halves it again
        rows = [
            torch.cat([box, objectness[:, None], scores], 1) for objectness, scores in ((one / 2, half), (one, weaker))
        ]
        if self.form != "yolox-raw":
            return place(rows[0], 40, num) + place(rows[1], 9, num)
        # Cells 9 and 40 are at column 1, row 1 and column 0, row 5 of the level with stride 8.
        raw = [
            torch.cat([row[:, :2] / 8 - torch.tensor(cell), (row[:, 2:4] / 8).log(), row[:, 4:]], dim=1)
            for row, cell in zip(rows, ([0.0, 5.0], [1.0, 1.0]), strict=True)
        ]
        return place(raw[0], 40, num) + place(raw[1], 9, num)


class Detr(torch.nn.Module):
    """Class logits and boxes of queries.

    Args:
        softmax: a further column means "no object".
    """

    def __init__(self, *, softmax: bool, imagenet: bool) -> None:
        super().__init__()
        self.softmax, self.finder = softmax, Finder(imagenet=imagenet)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        corners, confidence = self.finder(pixel_values)
        boxes = place(centres(corners) / SIDE, 3, 12, 0.5)
        rest = 1 - confidence
        if self.softmax:
            scores = torch.stack([rest / 4, confidence, rest / 4, rest / 2], dim=1).log()
            filler = torch.tensor([0.0, 0.0, 0.0, 9.0])
        else:
            scores = torch.stack([rest * 0 - 9, (confidence / rest).log(), rest * 0 - 9], dim=1)
            filler = torch.tensor([-9.0, -9.0, -9.0])
        mask = torch.zeros(1, 12, 1)
        mask[:, 3] = 1
        return scores[:, None] * mask + filler * (1 - mask), boxes


class RtDetr(torch.nn.Module):
    """Labels, boxes and scores, as RT-DETR's own export gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder()

    def forward(
        self, images: torch.Tensor, orig_target_sizes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        corners, confidence = self.finder(images)
        boxes = place(corners / SIDE * orig_target_sizes.repeat(1, 2).float(), 0, 5)
        return (
            place(torch.ones_like(confidence)[:, None], 0, 5)[..., 0].long(),
            boxes,
            place(confidence[:, None], 0, 5)[..., 0],
        )


class UltralyticsRtDetr(torch.nn.Module):
    """One output: boxes in fractions of the input and a probability per class."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        corners, confidence = self.finder(images)
        row = torch.cat(
            [centres(corners) / SIDE, torch.stack([confidence * 0, confidence, confidence * 0], dim=1)], dim=1
        )
        return place(row, 4, 30)


class Torchvision(torch.nn.Module):
    """Boxes, labels and scores of one image (3, H, W). Label 0 is the background."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        corners, confidence = self.finder(image[None])
        return corners, torch.full_like(confidence, 2).long(), confidence


class TensorFlow(torch.nn.Module):
    """Boxes in fractions, y before x, and labels from 1, for uint8 (N, H, W, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = Finder(unit=255)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        corners, confidence = self.finder(image.permute(0, 3, 1, 2).float())
        boxes = place(corners[:, [1, 0, 3, 2]] / SIDE, 0, 6)
        scores = place(confidence[:, None], 0, 6)[..., 0]
        return boxes, place(torch.full_like(confidence, 2)[:, None], 0, 6, 1.0)[..., 0], scores, confidence * 0 + 1


class Noise(torch.nn.Module):
    """Outputs of the given shape that depend on every part of the image, between 0 and the given values.

    Args:
        shape: of the output, without the batch.
        upper: the largest value of each column, which is the last dimension.
    """

    def __init__(self, shape: Sequence[int], upper: Sequence[float], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shape, self.upper = tuple(shape), torch.tensor(upper)
        self.layers = torch.nn.Linear(3 * 8 * 8, int(np.prod(shape)))
        torch.nn.init.normal_(self.layers.weight, std=0.4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool2d(images, SIDE // 8).flatten(1)
        pooled = (pooled - pooled.mean(dim=1, keepdim=True)) / (pooled.std(dim=1, keepdim=True) + 1e-3)
        return self.layers(pooled).sigmoid().unflatten(1, self.shape) * self.upper


def export(
    network: torch.nn.Module,
    path: Path,
    inputs: Mapping[str, torch.Tensor] | None = None,
    outputs: Sequence[str] = ("output0",),
    *,
    dynamic: Sequence[int] = (),
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a graph.

    Args:
        network: what is exported.
        path: where the graph goes.
        inputs: by default `images`, one frame.
        outputs: names of the outputs.
        dynamic: dimensions of the first input of any size.
        metadata: texts by key.
    """
    inputs = inputs or {"images": torch.rand(1, 3, SIDE, SIDE)}
    axes = {
        name: {axis: f"{name}{axis}" for axis in dynamic if axis == 0 or number == 0}
        for number, name in enumerate(inputs)
    }
    if 0 in dynamic:
        axes |= {name: {0: "batch"} for name in outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its successor, which needs another package
        torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: found for name, found in axes.items() if found},
            opset_version=17,
            dynamo=False,
        )
    if metadata:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.save(model, path)
    return path
