"""Layer-wise learning-rate decay, one optimizer constructor for every task."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from mmdcn.traits import find_trait

# (parameter name, prefix of the backbone in it) -> (layer number, number of layers).
LayerFunction = Callable[[str, str], tuple[int, int]]

_OPTIONS = ('rule', 'layer_decay_rate', 'no_decay_keys', 'offset_lr_scale', 'offset_keys',
            'layer_zero_keys', 'custom_keys')
_CUSTOM_OPTIONS = ('lr_mult', 'decay_mult')
_UPSTREAM_OPTIONS = ('num_layers', 'depths', 'decay_rate', 'decay_type')


@dataclass(frozen=True)
class _Rule:
    """Which method of the backbone gives the layer, and the keys that hold unless given."""

    method: str
    no_decay_keys: tuple[str, ...]
    offset_keys: tuple[str, ...]


_NO_DECAY_KEYS = ('norm', 'pos_embed', 'cls_token', 'rel_pos_', 'relative_position',
                  'sampling_offsets')
_OFFSET_KEYS = ('sampling_offsets', 'reference_points', 'offset_mask.')
_RULES = {
    'downstream': _Rule('get_layer_depth', _NO_DECAY_KEYS, _OFFSET_KEYS),
    'finetune': _Rule('get_finetune_depth', (),
                      ('offset', 'attention_weights', 'center_feature_scale_proj', 'alpha_beta')),
    'stage_wise': _Rule('get_stage_depth', _NO_DECAY_KEYS, _OFFSET_KEYS),
}


@dataclass(frozen=True)
class ParamSetting:
    """How one parameter is trained.

    Attributes:
        layer: Layer number, 0 at the input.
        lr_scale: Factor on the optimizer's learning rate.
        decay_mult: Factor on the optimizer's weight decay.
    """

    layer: int
    lr_scale: float
    decay_mult: float

    @property
    def group_name(self) -> str:
        """Readable name of the parameter group, e.g. ``layer_12_no_decay_lr0.0021``."""
        decay = {1.0: 'decay', 0.0: 'no_decay'}.get(self.decay_mult, f'decay{self.decay_mult:g}')
        return f'layer_{self.layer}_{decay}_lr{self.lr_scale:.4g}'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall towards the input, and no weight decay where it harms.

    The backbone says which layer a parameter belongs to (``get_layer_depth``); its rate is
    ``lr * layer_decay_rate ** (layers - 1 - layer)``, and ``lr`` outside the backbone. Parameters
    that take no gradient are skipped. ``paramwise_cfg`` may hold

    - ``rule`` (default ``'downstream'``): ``'finetune'`` is InternImage's rule for fine-tuning on
      ImageNet. There the last block keeps the full rate, stem and first block share theirs
      (``get_finetune_depth``), ``no_decay_keys`` are none, and ``offset_keys`` are ``offset``,
      ``attention_weights``, ``center_feature_scale_proj`` and ``alpha_beta`` (the published
      ``dcn_lr_mul`` is our ``offset_lr_scale``); for ConvNeXt it is ConvNeXt's rule there, which
      differs from the default in T alone. ``'stage_wise'`` is ConvNeXt's rule for UperNet:
      one rate per stage, none of them near the heads' (ConvNeXt's ``'layer_wise'`` is our default).
       The default also knows mmseg's BEiT and MAE, which do not
      answer ``get_layer_depth`` themselves;
    - ``layer_decay_rate`` (default 1.0);
    - ``no_decay_keys``: parts of names that take no weight decay, beside vectors and biases
      (default ``norm``, ``pos_embed``, ``cls_token``, ``rel_pos_``, ``relative_position``,
      ``sampling_offsets``; BEiT's published training decays ``relative_position_bias_table``,
      and has only the second to fourth);
    - ``offset_lr_scale`` (default 1.0): extra factor on the rate of names that contain one of
      ``offset_keys`` (default ``sampling_offsets``, ``reference_points``, ``offset_mask.``, the
      last for DCNv4; DCNv3's ``dcn.offset.`` was never scaled in the published training);
    - ``layer_zero_keys`` (default none): beginnings of names outside the backbone that train at
      the rate of layer 0. The published Mask2Former runs do so for ``decode_head.`` followed by
      ``mask_embed``, ``cls_embed``, ``level_embed``, ``query_embed`` and ``query_feat``, DINO
      for its level embedding;
    - ``custom_keys``: part of a name -> ``lr_mult``, multiplied to the above, and
      ``decay_mult``, which replaces the rules for weight decay. Of several keys in one name the
      longest counts.

    Raises:
        TypeError: the model has no backbone with the method that its rule asks.
        ValueError: an unknown option, a rate out of bounds, or a custom key without parameter.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        cfg = self.paramwise_cfg
        for name in cfg:
            if name in _UPSTREAM_OPTIONS:
                raise ValueError(f'paramwise_cfg is not valid: got {name!r}, which the backbone '
                                 f'knows or layer_decay_rate replaces; remove it')
            if name not in _OPTIONS:
                raise ValueError(f'paramwise_cfg is not valid: got {name!r}, '
                                 f'expected {", ".join(_OPTIONS)}')
        for key, setting in cfg.get('custom_keys', {}).items():
            unknown = set(setting) - set(_CUSTOM_OPTIONS)
            if unknown:
                raise ValueError(f'custom_keys[{key!r}] is not valid: got {sorted(unknown)}, '
                                 f'expected {", ".join(_CUSTOM_OPTIONS)}')
        rule = cfg.get('rule', 'downstream')
        if rule not in _RULES:
            raise ValueError(f'rule is not valid: got {rule!r}, expected {", ".join(_RULES)}')
        rate = cfg.get('layer_decay_rate', 1.0)
        if not 0 < rate <= 1:
            raise ValueError(f'layer_decay_rate is not valid: got {rate}, expected within (0, 1]')
        for name in ('no_decay_keys', 'offset_keys', 'layer_zero_keys'):
            if isinstance(cfg.get(name), str):
                raise ValueError(f'{name} is not valid: got a string, expected a list of strings')
        if self.base_lr is None:
            raise ValueError('optimizer is not valid: got no lr, expected a learning rate')
        # An empty paramwise_cfg would make the base class skip add_params, and with it all rules.
        self.rule = _RULES[rule]
        self.paramwise_cfg = {'layer_decay_rate': rate, **cfg}

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module: int | float | None = None) -> None:
        """Append the parameter groups of ``module``, ordered by layer, to ``params``."""
        groups: dict[ParamSetting, dict] = {}
        for name, setting in self.param_settings(module).items():
            group = groups.setdefault(setting, dict(params=[], param_names=[]))
            group['params'].append(module.get_parameter(name))
            group['param_names'].append(name)
        for setting in sorted(groups, key=lambda s: (s.layer, s.decay_mult, s.lr_scale)):
            group = groups[setting]
            group.update(group_name=setting.group_name, lr_scale=setting.lr_scale,
                         lr=self.base_lr * setting.lr_scale)
            # Without a given weight decay the optimizer's own default holds, but not for vectors.
            if self.base_wd is not None or setting.decay_mult == 0:
                group['weight_decay'] = (self.base_wd or 0.0) * setting.decay_mult
            params.append(group)
            print_log(f'{setting.group_name}: {len(group["params"])} parameters, '
                      f'lr {group["lr"]:.4g}, weight decay {group.get("weight_decay")}',
                      logger='current', level=logging.DEBUG)
        rates = [group['lr'] for group in params]
        print_log(f'layer decay {self.paramwise_cfg["layer_decay_rate"]}: {len(params)} parameter '
                  f'groups, learning rates {min(rates, default=0):.4g} to '
                  f'{max(rates, default=0):.4g}', logger='current')

    def param_settings(self, model: nn.Module) -> dict[str, ParamSetting]:
        """Setting of every trained parameter of ``model``, by name."""
        backbones = _find_backbones(model, self.rule.method)
        custom = self.paramwise_cfg.get('custom_keys', {})
        unused = set(custom)
        settings = {}
        for name, param in model.named_parameters():
            key = max((k for k in custom if k in name), key=len, default=None)
            unused.discard(key)
            if param.requires_grad:
                settings[name] = self._setting(name, param.ndim, backbones, custom.get(key, {}))
        if unused:
            raise ValueError(f'custom_keys is not valid: got {sorted(unused)}, which is decisive '
                             f'for no parameter; expected parts of parameter names')
        return settings

    def _setting(self, name: str, ndim: int, backbones: dict[str, LayerFunction],
                 custom: dict[str, float]) -> ParamSetting:
        cfg = self.paramwise_cfg
        prefix = next((p for p in backbones if name.startswith(p)), None)
        if prefix is None:
            first, layer_of = next(iter(backbones.items()))
            _, num_layers = layer_of(first, first)
            zero = name.startswith(tuple(cfg.get('layer_zero_keys', ())))
            layer = 0 if zero else num_layers - 1
        else:
            layer, num_layers = backbones[prefix](name, prefix)
        scale = cfg['layer_decay_rate']**(num_layers - 1 - layer)
        if _contains(name, cfg.get('offset_keys', self.rule.offset_keys)):
            scale *= cfg.get('offset_lr_scale', 1.0)
        no_decay = ndim == 1 or name.endswith('.bias') or _contains(
            name, cfg.get('no_decay_keys', self.rule.no_decay_keys))
        return ParamSetting(
            layer, scale * custom.get('lr_mult', 1.0),
            float(custom.get('decay_mult', 0.0 if no_decay else 1.0)))


def _contains(name: str, keys: Iterable[str]) -> bool:
    return any(key in name for key in keys)


def _find_backbones(model: nn.Module, method: str) -> dict[str, LayerFunction]:
    """Layer functions of the outermost ``*backbone`` submodules, by prefix of parameters."""
    found: dict[str, LayerFunction] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(prefix) for prefix in found)
        if not name.rpartition('.')[2].endswith('backbone') or inside:
            continue
        layer_of = find_trait(module, method)
        if layer_of is None:
            raise TypeError(
                f'{name} is not valid: {type(module).__name__} has no {method}, which layer '
                'decay needs; add it, or drop the optimizer wrapper\'s constructor')
        found[f'{name}.'] = layer_of
    if not found:
        raise TypeError(f'{type(model).__name__} is not valid: got no submodule called backbone, '
                        f'expected one that has {method}')
    return found
