"""What OpenMMLab's backbones do not say of themselves: layer numbers, what their checkpoints lack.

A layer function takes (parameter name, prefix of the backbone in it) and returns (layer number,
number of layers); layer 0 is at the input, the last one is all that lies behind the backbone.
Sources: the training code of ConvNeXt (arXiv:2201.03545) and BEiT (arXiv:2106.08254).
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from mmdcn.traits import answers

LayerFunction = Callable[[str, str], tuple[int, int]]


def _is_convnext(module: nn.Module) -> bool:
    """Whether a module is built like mmpretrain's ConvNeXt, which numbers its own blocks."""
    return all(hasattr(module, name) for name in ('downsample_layers', 'stages', 'get_layer_depth'))


@answers('checkpoint_may_lack')
def _convnext_may_lack(module: nn.Module) -> tuple[str, ...] | None:
    """ConvNeXt: a classifier has no norms of the maps that it gives downstream."""
    return tuple(rf'^norm{i}\.' for i in range(4)) if _is_convnext(module) else None


@answers('get_stage_depth')
def _convnext_stages(module: nn.Module) -> LayerFunction | None:
    """ConvNeXt for UperNet."""
    return partial(_convnext_stage, module.get_layer_depth) if _is_convnext(module) else None


@answers('get_finetune_depth')
def _convnext_blocks(module: nn.Module) -> LayerFunction | None:
    """ConvNeXt on ImageNet."""
    return partial(_convnext_finetune, module.get_layer_depth) if _is_convnext(module) else None


@answers('get_layer_depth')
def _transformer_blocks(module: nn.Module) -> LayerFunction | None:
    """Plain vision transformers, such as mmseg's BEiT and MAE.

    They have ``patch_embed`` and a list called ``blocks`` or ``layers``.
    """
    blocks = getattr(module, 'blocks', getattr(module, 'layers', None))
    if hasattr(module, 'patch_embed') and isinstance(blocks, nn.ModuleList):
        return partial(_transformer_block, len(blocks))
    return None


def _convnext_stage(by_block: LayerFunction, name: str, prefix: str) -> tuple[int, int]:
    """Stem and downsampling 0, stage s at s + 1, the rest as by blocks.

    The number of layers stays that of the rule by blocks, 8 or 14. The stages of a small and a
    large model hence differ in rate, and the last stage lies far below the heads, as published.
    """
    layer, num_layers = by_block(name, prefix)
    parts = name.removeprefix(prefix).split('.')
    if not name.startswith(prefix) or parts[0] not in ('downsample_layers', 'stages'):
        return layer, num_layers
    return int(parts[1]) + 1 if parts[0] == 'stages' else 0, num_layers


def _convnext_finetune(by_block: LayerFunction, name: str, prefix: str) -> tuple[int, int]:
    """As by blocks, but on ImageNet the small models have the 14 layers of the large ones, too."""
    layer, num_layers = by_block(name, prefix)
    if num_layers != 8:
        return layer, num_layers
    return layer if layer < 6 else layer + 6, 14


def _transformer_block(depth: int, name: str, prefix: str) -> tuple[int, int]:
    """Tokens, position embedding and patch embedding 0, block b at b + 1, the rest last."""
    num_layers = depth + 2
    inner = name.removeprefix(prefix)
    parts = inner.split('.')
    if not name.startswith(prefix):
        return num_layers - 1, num_layers
    if inner in ('cls_token', 'mask_token', 'pos_embed') or parts[0] == 'patch_embed':
        return 0, num_layers
    if parts[0] in ('blocks', 'layers'):
        return int(parts[1]) + 1, num_layers
    return num_layers - 1, num_layers
