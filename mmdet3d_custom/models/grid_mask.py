"""GridMask, which erases squares of the training pictures.

Source: P. Chen et al., "GridMask Data Augmentation", arXiv:2001.04086, with the inverted mask of
BEVFormer v2's release.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

_CANVAS = 1.5


def _draw(low: int, high: int) -> int:
    """An integer of low..high - 1, from torch's generator of the CPU."""
    return int(torch.randint(low, high, ()))


def _bands(size: int, period: int, length: int, start: int) -> Tensor:
    """(size,) bool, True within bands of a length in each whole period."""
    place = torch.arange(size) - start
    return (place >= 0) & (place % period < length) & (place // period < size // period)


class GridMask(nn.Module):
    """In training, keeps what lies in horizontal or vertical bands and zeroes the squares between.

    Period and offset are drawn for each sample; its cameras share them.

    Args:
        prob: Probability that a sample is masked.
        ratio: Width of a band over the period.
    """

    def __init__(self, prob: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        self.prob = prob
        self.ratio = ratio

    def forward(self, images: Tensor) -> Tensor:
        """Mask.

        Args:
            images: (B, N, 3, H, W), normalised and padded, N cameras of B samples.

        Returns:
            The shape of ``images``; unchanged in eval mode.
        """
        if not self.training:
            return images
        masks = torch.stack([self._mask(*images.shape[-2:]) for _ in range(images.shape[0])])
        return images * masks.to(images.device, images.dtype)[:, None, None]

    def _mask(self, height: int, width: int) -> Tensor:
        """(H, W) bool, True where pixels are kept."""
        if float(torch.rand(())) >= self.prob:
            return torch.ones(height, width, dtype=torch.bool)
        period = _draw(2, height)
        length = max(min(int(period * self.ratio + 0.5), period - 1), 1)
        rows, columns = (
            _bands(canvas, period, length, _draw(0, period))[(canvas - size) // 2:][:size]
            for size, canvas in ((height, int(_CANVAS * height)), (width, int(_CANVAS * width))))
        return rows[:, None] | columns
