"""Parts of the plain ViT detector backbone: attention with relative positions, blocks,
resolution modules.

Token maps are channels-last, (N, H, W, C), H and W counted in patches.
"""
from __future__ import annotations

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each position; (N, C, H, W) -> same, eps 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) over C."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RelativePositionBias(nn.Module):
    """Learned additive attention bias by relative position, one value per head (Swin, BEiT).

    Weight: ``relative_position_bias_table`` ((2*grid - 1)**2, heads), zeros at first; row
    (dy + grid - 1) * (2*grid - 1) + dx + grid - 1 with dy, dx = query minus key.

    Args:
        grid: Side of the square token map, in tokens.
        heads: Attention heads.
    """

    def __init__(self, grid: int, heads: int) -> None:
        super().__init__()
        self.side = 2 * grid - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(self.side**2, heads))

    def forward(self, height: int, width: int) -> Tensor:
        """Bias (heads, height*width, height*width), query before key.

        A map of another size than ``grid`` uses the bicubically resized table.
        """
        table = self.relative_position_bias_table.t().unflatten(1, (self.side, self.side))
        target = (2 * height - 1, 2 * width - 1)
        if target != (self.side, self.side):
            table = F.interpolate(table[None], target, mode='bicubic', align_corners=False)[0]
        pairs = table.unfold(1, height, 1).unfold(2, width, 1).flip(3, 4)
        return pairs.reshape(-1, height * width, height * width)


class Attention(nn.Module):
    """Multi-head self-attention over a token map (N, H, W, C) -> same.

    Args:
        channels: Width C.
        heads: Attention heads.
        axis_grid: None, or the side of the map for which decomposed relative positions
            ``rel_pos_h`` and ``rel_pos_w`` (2*axis_grid - 1, C/heads) are stored: the product of
            the unscaled query with its row adds to the logit, per axis (arXiv:2203.16527). Other
            sizes use linearly resized rows.
    """

    def __init__(self, channels: int, heads: int, axis_grid: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.rel_pos_h = self.rel_pos_w = None
        if axis_grid is not None:
            shape = (2 * axis_grid - 1, channels // heads)
            self.rel_pos_h = nn.Parameter(torch.zeros(shape))
            self.rel_pos_w = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend within each map of the batch.

        Args:
            x: (N, H, W, C).
            bias: None or (heads, H*W, H*W), added to the logits; unused where relative positions
                are decomposed.
        """
        n, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(n, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.rel_pos_h is not None:
            bias = self._axis_bias(q, height, width)
        elif bias is not None:
            bias = bias[None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(n, height, width, channels))

    def _axis_bias(self, q: Tensor, height: int, width: int) -> Tensor:
        q = q.unflatten(2, (height, width))
        by_row = torch.einsum('nhyxd,ydk->nhyxk', q, _axis_pairs(self.rel_pos_h, height))
        by_column = torch.einsum('nhyxd,xdk->nhyxk', q, _axis_pairs(self.rel_pos_w, width))
        bias = by_row[..., :, None] + by_column[..., None, :]
        return bias.flatten(4, 5).flatten(2, 3)


def _axis_pairs(table: Tensor, size: int) -> Tensor:
    """Rows of relative positions (2*grid - 1, D) -> of all pairs (size queries, D, size keys)."""
    if table.shape[0] != 2 * size - 1:
        table = F.interpolate(table.t()[None], 2 * size - 1, mode='linear')[0].t()
    return table.unfold(0, size, 1).flip(2)


def to_windows(x: Tensor, size: int) -> Tensor:
    """Zero-pad (N, H, W, C) at the bottom and right, cut it into (N*windows, size, size, C)."""
    _, height, width, _ = x.shape
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    n, height, width, channels = x.shape
    x = x.reshape(n, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(-1, size, size, channels)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Inverse of :func:`to_windows`, padding cropped: -> (N, height, width, C)."""
    _, size, _, channels = windows.shape
    rows, columns = -(-height // size), -(-width // size)
    n = windows.shape[0] // (rows * columns)
    x = windows.reshape(n, rows, columns, size, size, channels).transpose(2, 3)
    return x.reshape(n, rows * size, columns * size, channels)[:, :height, :width]


class _MLP(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvResidual(nn.Module):
    """Bottleneck of half width that carries features across windows, (N, H, W, C) -> same.

    1x1, 3x3 and 1x1 convolution, each with a channel norm, GELU between them; the last norm
    starts at zero, so the block starts as the identity (arXiv:2203.16527, section 3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(channels, half, 1, bias=False)
        self.norm1 = ChannelLayerNorm(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.norm2 = ChannelLayerNorm(half)
        self.conv3 = nn.Conv2d(half, channels, 1, bias=False)
        self.norm3 = ChannelLayerNorm(channels)
        self.act = nn.GELU()
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Add the bottleneck's output to its input."""
        y = x.permute(0, 3, 1, 2)
        y = self.act(self.norm1(self.conv1(y)))
        y = self.act(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Pre-norm transformer block, (N, H, W, C) -> same.

    Args:
        channels: Width C.
        heads: Attention heads.
        hidden: Width of the MLP's hidden layer.
        window: Side of the attention windows in tokens; None attends to the whole map. The
            *normalised* map is padded before the query, key and value projection, padded keys
            are not masked, and the padding is cropped before the residual sum.
        axis_grid: See :class:`Attention`.
        layer_scale: Initial value of ``gamma_1`` and ``gamma_2``; None has none.
        conv_residual: Whether a :class:`ConvResidual` follows.
        drop_path: Rate of stochastic depth, on both branches.
        with_cp: Recompute the block in the backward pass to save memory.
    """

    def __init__(self, channels: int, heads: int, hidden: int, *, window: int | None = None,
                 axis_grid: int | None = None, layer_scale: float | None = None,
                 conv_residual: bool = False, drop_path: float = 0.0,
                 with_cp: bool = False) -> None:
        super().__init__()
        self.window = window
        self.with_cp = with_cp
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads, axis_grid)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = _MLP(channels, hidden)
        self.drop_path = DropPath(drop_path)
        self.gamma_1 = self.gamma_2 = None
        if layer_scale is not None:
            self.gamma_1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma_2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.residual = ConvResidual(channels) if conv_residual else None

    def _attend(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if self.window is None:
            return self.attn(x, bias)
        windows = self.attn(to_windows(x, self.window), bias)
        return from_windows(windows, *x.shape[1:3])

    def _forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = self._attend(self.norm1(x), bias)
        x = x + self.drop_path(y if self.gamma_1 is None else self.gamma_1 * y)
        y = self.mlp(self.norm2(x))
        x = x + self.drop_path(y if self.gamma_2 is None else self.gamma_2 * y)
        return x if self.residual is None else self.residual(x)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Transform a token map; ``bias`` is that of :class:`Attention`, over window or map."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, bias, use_reentrant=False)
        return self._forward(x, bias)


def resolution_modules(channels: int) -> nn.ModuleList:
    """The four modules that bring a stride-16 map (N, C, H, W) to strides 4, 8, 16 and 32.

    All keep the width; the last rounds sizes up. XCiT's idea; arXiv:2111.11429, section 2.
    The paper names no group count: 32, that of the public implementations.
    """
    def twice_as_fine() -> nn.Module:
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)

    return nn.ModuleList([
        nn.Sequential(twice_as_fine(), nn.GroupNorm(32, channels), nn.GELU(), twice_as_fine()),
        nn.Sequential(twice_as_fine()),
        nn.Identity(),
        nn.MaxPool2d(2, ceil_mode=True),
    ])
