"""A detector of your own: it boxes what differs from an even background, such as parts on a table."""

import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from prelabel import Detections, FrameBatch


class StandingOut:
    """Compares the mean colour of each cell with the frame's median, and boxes the cells that differ and touch."""

    class_names = ("thing",)

    def __init__(self, threshold: float = 40.0, cell: int = 8) -> None:
        self.threshold, self.cell = threshold, cell  # levels of 255; pixels

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Returns one `Detections` per frame."""
        cells = avg_pool2d(batch.data.permute(0, 3, 1, 2).float(), self.cell)
        contrast = (cells - cells.flatten(2).median(dim=2).values[..., None, None]).abs().amax(dim=1)
        return [self._boxes(frame) for frame in contrast]

    def _boxes(self, contrast: torch.Tensor) -> Detections:
        groups = touching(contrast > self.threshold)
        cells = [group.nonzero().flip(1) for group in groups]  # (N, 2) of x, y
        corners = [torch.cat([xy.amin(0), xy.amax(0) + 1]) * self.cell for xy in cells]
        confidence = [1 - self.threshold / float(contrast[group].max()) for group in groups]
        return Detections([box.tolist() for box in corners], confidence, [0] * len(groups))


def touching(mask: torch.Tensor) -> list[torch.Tensor]:
    """Returns a mask (H, W) for each group of true cells that touch: each cell takes the highest number next to it."""
    numbers = torch.arange(1, mask.numel() + 1, device=mask.device, dtype=torch.float32).reshape(mask.shape) * mask
    while not torch.equal(spread := max_pool2d(numbers[None], 3, 1, 1)[0] * mask, numbers):
        numbers = spread
    return [numbers == number for number in numbers.unique() if number]
