"""Two InternImages of which the first feeds the second: the backbone of CB-InternImage.

Source: T. Liang et al., "CBNet: A Composite Backbone Network Architecture for Object Detection",
IEEE TIP 2022, arXiv:2107.00420 (dense higher-level composition), as W. Wang et al. use it in
"InternImage", CVPR 2023, arXiv:2211.05778. Parameter names follow the published checkpoints.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn
from torch.nn import functional

from mmcls_custom.backbones import InternImage
from mmcls_custom.backbones.arguments import check_out_indices, refuse

Maps = tuple[Tensor, ...]


class LeadInternImage(BaseModule):
    """The levels of an InternImage, and one factor per channel of what each level is given.

    Args:
        whole: The network whose levels to take; its stem is left behind.
        init_cfg: mmengine's.
    """

    # The factors are born in the composition; the rest is an InternImage's.
    checkpoint_may_lack = (r'^gamma\d$', *InternImage.checkpoint_may_lack)

    def __init__(self, whole: InternImage, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.levels = whole.levels
        for i, width in enumerate(whole.cfg.widths):
            # Zero: at the start the lead is an InternImage of its own, on the other's stem.
            self.register_parameter(f'gamma{i}', nn.Parameter(torch.zeros(width)))


@MODELS.register_module()
class CompositeInternImage(BaseModule):
    """Two InternImages of one architecture: an assisting one, and the lead that it feeds.

    Image (N, 3, H, W) -> maps of the lead (N, C_i, H_i, W_i), strides 4, 8, 16, 32; any H and W.
    The lead has no stem and starts from the assisting network's. Level i of the lead is given
    ``x + gamma_i * sum over j >= i of resize(P_ij(F_j))`` where ``F_j`` is level j of the assisting
    network, ``P_ij`` a 1x1 convolution (the identity for j = i), the resizing takes the nearest
    pixel, and ``gamma_i`` is a vector over channels that starts at zero.

    ``CompositeDINO`` trains both halves; every other model sees the lead alone.

    Args:
        arch: As InternImage's, for both halves.
        out_indices: Levels to return, rising numbers within 0..3; the same of both halves.
        frozen_patterns: Regular expressions (``re.search``) of names of parameters that do not
            train, such as ``r'^cb_modules\\.0\\.'``, the assisting network, or
            ``r'^(?!cb_modules\\.1\\.levels\\.3\\.)'``, all but the lead's last level. Modules of
            which everything is frozen stay in eval mode.
        init_cfg: mmengine's. The file of ``dict(type='Pretrained', checkpoint=FILE)`` may be a
            composite's, or one InternImage's, which then fills both halves.
        **settings: Whatever else InternImage takes (``core_op``, ``drop_path_rate``, ``with_cp``,
            ``in_channels``, the fields of its architecture), but for ``frozen_stages``.

    Raises:
        ValueError: An argument is not valid, or a pattern fits no parameter.
    """

    archs = InternImage.archs
    checkpoint_may_lack = InternImage.checkpoint_may_lack

    def __init__(self, arch: str | Mapping[str, Any] | None = None, *,
                 out_indices: Sequence[int] = (0, 1, 2, 3), frozen_patterns: Sequence[str] = (),
                 init_cfg: Any = None, **settings: Any) -> None:
        super().__init__(init_cfg=init_cfg)
        if 'frozen_stages' in settings:
            refuse('frozen_stages', settings['frozen_stages'], 'frozen_patterns in its place')
        assisting, whole = (InternImage(arch, **settings) for _ in range(2))
        self.cfg, self.in_channels = assisting.cfg, assisting.in_channels
        widths = self.cfg.widths
        self.out_indices = check_out_indices(out_indices, len(widths), 'level')
        self.cb_modules = ModuleList([assisting, LeadInternImage(whole)])
        self.cb_linears = nn.ModuleList(
            nn.ModuleList(nn.Identity() if j == i else nn.Conv2d(widths[j], widths[i], 1)
                          for j in range(i, len(widths)))
            for i in range(len(widths)))
        if isinstance(frozen_patterns, str):
            refuse('frozen_patterns', frozen_patterns, 'a list of regular expressions')
        self.frozen_patterns = tuple(frozen_patterns)
        for pattern in self.frozen_patterns:
            if not any(re.search(pattern, name) for name, _ in self.named_parameters()):
                refuse('frozen_patterns', pattern, 'a pattern that fits a parameter of '
                       f'{type(self).__name__}, such as {next(self.named_parameters())[0]}')
        self._freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned feature maps."""
        return tuple(self.cfg.widths[i] for i in self.out_indices)

    def forward(self, x: Tensor, halves: bool = False) -> Maps | tuple[Maps, Maps]:
        """Feature maps of the lead, as InternImage gives its own.

        Args:
            x: Image (N, in_channels, H, W).
            halves: Give (maps of the assisting network, maps of the lead).

        Raises:
            ValueError: For another number of dimensions or channels.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            refuse('input shape', tuple(x.shape), f'(N, {self.in_channels}, H, W)')
        assisting, lead = self.cb_modules
        stem = x = assisting.patch_embed(x)
        features = []
        for level in assisting.levels:
            feature, x = level(x)
            features.append(feature.permute(0, 3, 1, 2))
        maps, x = [], stem
        for i, level in enumerate(lead.levels):
            gamma = getattr(lead, f'gamma{i}')
            feature, x = level(x + gamma * self._compose(i, features).permute(0, 2, 3, 1))
            maps.append(feature.permute(0, 3, 1, 2))
        given, led = (tuple(found[i] for i in self.out_indices) for found in (features, maps))
        return (given, led) if halves else led

    def _compose(self, level: int, features: Sequence[Tensor]) -> Tensor:
        """What the assisting network's maps (NCHW) of this and coarser levels give to a level."""
        total, *coarser = (layer(feature) for layer, feature in
                           zip(self.cb_linears[level], features[level:], strict=True))
        size = total.shape[2:]
        for feature in coarser:
            total = total + functional.interpolate(feature, size=size, mode='nearest')
        return total

    def init_weights(self) -> None:
        """As mmengine's, but the file of one InternImage fills both halves."""
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, Mapping) else self.init_cfg or []
        for cfg in cfgs:
            if cfg['type'] == 'Pretrained' and not _is_composite(cfg['checkpoint']):
                for half in self.cb_modules:
                    half.init_cfg = cfg
                self.init_cfg = [other for other in cfgs if other is not cfg]
        super().init_weights()

    def train(self, mode: bool = True) -> CompositeInternImage:
        """As ``nn.Module.train``, but frozen modules stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if not self.frozen_patterns:
            return
        for name, param in self.named_parameters():
            if any(re.search(pattern, name) for pattern in self.frozen_patterns):
                param.requires_grad_(False)
        for module in self.modules():
            params = list(module.parameters())
            if params and not any(param.requires_grad for param in params):
                nn.Module.train(module, False)  # `eval` of this module would come back here

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer number of a parameter, for layer-wise learning-rate decay.

        Each half has the layers of an InternImage; what composes them is no layer of either and
        trains at the full rate. (The published rule knew no name of a composite backbone: all of
        it trained at the full rate, which is ``layer_decay_rate=1.0``.)

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: What leads to this backbone in that name, e.g. ``'backbone.'``.

        Returns:
            (layer number, number of layers = blocks of one half + 2).
        """
        half = re.match(r'cb_modules\.[01]\.', param_name.removeprefix(prefix))
        inner = prefix + half.group() if half else prefix
        return self.cb_modules[0].get_layer_depth(param_name, inner)


def _is_composite(file: str) -> bool:
    """Whether a checkpoint holds a composite backbone."""
    state = CheckpointLoader.load_checkpoint(file, 'cpu')['state_dict']
    return any('cb_modules.' in name for name in state)
