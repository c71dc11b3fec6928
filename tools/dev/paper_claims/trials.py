"""What is trained, and which claims of the papers it tries, as data.

Every claim is said in one sentence without the paper's words, with the figures that the paper gives
for it, and tried by comparisons of two variants. Figures are ImageNet top-1 unless they say
otherwise. Sources: InternImage, arXiv:2211.05778; DCNv4, arXiv:2401.06197; ConvNeXt,
arXiv:2201.03545.
"""
from __future__ import annotations

from dataclasses import dataclass, field

ITERATIONS = 600
EVERY = 100  # iterations between two validations
EARLY = 200  # where convergence is compared
BATCH = 16
SEEDS = (0, 1, 2)
# 600 batches of 16 are hardly more than the 8,800 training images, so none is changed on its way.
_PIPELINE = [{'type': 'LoadImageFromFile'}, {'type': 'ResizeEdge', 'scale': 64},
             {'type': 'CenterCrop', 'crop_size': 64}, {'type': 'PackInputs'}]
# How every variant is trained: options of its config.
TRAINING = (
    f'train_dataloader.batch_size={BATCH}', f'train_dataloader.dataset.pipeline={_PIPELINE}',
    f'train_cfg.max_iters={ITERATIONS}', f'train_cfg.val_interval={EVERY}',
    'optim_wrapper.optimizer.lr=0.001',
    f'param_scheduler.0.end={ITERATIONS // 10}', f'param_scheduler.1.begin={ITERATIONS // 10}',
    f'param_scheduler.1.end={ITERATIONS}', 'default_hooks.checkpoint.save_optimizer=False')


@dataclass(frozen=True)
class Variant:
    """A model: what tables and pictures call it, its config, and what it changes there."""

    label: str
    config: str
    changes: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """``KEY=VALUE`` options of its training."""
        return (*self.changes, *TRAINING)


@dataclass(frozen=True)
class Comparison:
    """What a paper says of one variant against another.

    Args:
        first: Name of a variant.
        second: Name of the other.
        expected: ``'higher'``, ``'lower'`` or ``'alike'``.
        says: The same in words, the paper's claim.
        published: The paper's figures, first against second; empty where none is quoted.
        measure: ``'end'`` or ``'early'`` (top-1 there), ``'params'`` or ``'memory'``.
    """

    first: str
    second: str
    expected: str
    says: str
    published: str = ''
    measure: str = 'end'


@dataclass(frozen=True)
class Claim:
    """Comparisons that belong together: one section and one panel.

    Args:
        title: Of section and panel.
        source: Where the paper says it.
        says: What the paper says, for a reader who does not know it.
        variants: Names of the variants to show, in order.
        comparisons: What is tried.
        labels: What a variant is called here, where that is not its own label.
        steps: By variant, the paper's top-1 in percent, where the panel shows steps of a path
            instead of curves.
    """

    title: str
    source: str
    says: str
    variants: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    labels: dict[str, str] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)

    def label(self, variant: str) -> str:
        """What tables and pictures of this claim call a variant."""
        return self.labels.get(variant, VARIANTS[variant].label)


def _mini(name: str) -> str:
    return f'configs/mini/{name}_1xb48-2k_mini-imagenet-64x64.py'


def _backbone(**settings: object) -> tuple[str, ...]:
    return tuple(f'model.backbone.{name}={value}' for name, value in settings.items())


# By step of mmcls_custom/backbones/roadmap.py: what is new since the one before, and the paper's
# top-1.
_STEPS = {1: ('ResNet', 78.82), 3: ('stage ratio, patchify stem', 79.51),
          4: ('depthwise convolution', 78.28), 5: ('width x 1.5', 80.50),
          7: ('inverted, depthwise first', 79.92), 9: ('kernel 7x7', 80.57),
          12: ('GELU, fewer activations, norms', 81.41),
          14: ('LayerNorm, downsampling layers', 81.97)}


def _step(step: int) -> Variant:
    """A step of the roadmap; its small model has the paper's changes of depth and width."""
    depths, width = ((1, 1, 3, 1) if step >= 2 else (2, 2, 2, 2)), (24 if step >= 5 else 16)
    channels = 8 * width * (1 if step >= 6 else 4)
    return Variant(f'{step}: {_STEPS[step][0]}', _mini('resnet-pico-roadmap14'), (
        *_backbone(step=step, arch=f"{{'depths': {depths}, 'width': {width}}}"),
        f'model.head.in_channels={channels}'))


VARIANTS = {
    'dcnv3': Variant('DCNv3', _mini('internimage-pico')),
    'dcnv4': Variant('DCNv4', _mini('internimage-pico'), _backbone(core_op='DCNv4')),
    'dwconv': Variant('depthwise convolution', _mini('internimage-pico-dwconv')),
    'attention': Variant('attention', _mini('internimage-pico-dwconv'),
                         _backbone(operator='Attention')),
    'dcnv3-no-softmax': Variant('DCNv3 without softmax', _mini('internimage-pico-dwconv'),
                                _backbone(operator='DCNv3WithoutSoftmax')),
    'dcnv4-softmax': Variant('DCNv4 with softmax', _mini('internimage-pico-dwconv'),
                             _backbone(operator='DCNv4WithSoftmax')),
    'unshared': Variant('DCNv3, unshared weights', _mini('internimage-pico'),
                        _backbone(core_op='DCNv3Unshared')),
    'no-layer-scale': Variant('no layer scale', _mini('internimage-pico'),
                              _backbone(layer_scale=None)),
    'layer-scale-1e-5': Variant('layer scale from 0.00001', _mini('internimage-pico'),
                                _backbone(layer_scale=1e-5)),
    'post-norm': Variant('post-norm', _mini('internimage-pico'), _backbone(post_norm=True)),
    'center': Variant('centre feature scale', _mini('internimage-pico'),
                      _backbone(center_feature_scale=True)),
    'vit': Variant('ViT, attention', _mini('vit-pico-dcnv4'), _backbone(
        type='mmpretrain.VisionTransformer', with_cls_token=False, out_type='featmap',
        arch={'embed_dims': 64, 'num_layers': 6, 'num_heads': 4, 'feedforward_channels': 192})),
    'vit-dcnv4': Variant('ViT, DCNv4', _mini('vit-pico-dcnv4')),
    **{f'step-{step}': _step(step) for step in _STEPS},
}

CLAIMS = {
    'operators': Claim(
        'Operators in one backbone', 'DCNv4, figure 1b',
        'In one and the same network, DCNv4 learns faster than any other operator that lets pixels '
        'see their neighbours; DCNv3 is the slowest to begin.',
        ('dcnv4', 'dcnv3', 'dwconv', 'attention'), (
            Comparison('dcnv4', 'dcnv3', 'higher', 'DCNv4 learns faster than DCNv3',
                       measure='early'),
            Comparison('dcnv4', 'dwconv', 'higher', 'DCNv4 learns faster than a depthwise '
                       'convolution', measure='early'),
            Comparison('dcnv4', 'attention', 'higher', 'DCNv4 learns faster than attention',
                       measure='early'),
            Comparison('dcnv3', 'dwconv', 'lower', 'at first, DCNv3 is behind a depthwise '
                       'convolution', measure='early'),
            Comparison('dcnv3', 'attention', 'lower', 'at first, DCNv3 is behind attention',
                       measure='early'),
            Comparison('dcnv4', 'dcnv3', 'higher', 'DCNv4 ends above DCNv3',
                       '83.6 against 83.5 (T)'))),
    'softmax': Claim(
        'Softmax or none', 'InternImage, table 6; DCNv4, section 3',
        'Both operators add up what they sample with weights that the picture decides. The papers '
        'disagree about these. InternImage: softmax must make them positive, with sum 1, or '
        'accuracy drops far. DCNv4: left as they are, they learn faster and reach more.',
        ('dcnv3', 'dcnv3-no-softmax', 'dcnv4', 'dcnv4-softmax'), (
            Comparison('dcnv3-no-softmax', 'dcnv3', 'lower',
                       'InternImage: without softmax DCNv3 is worse', '65.7 against 83.5'),
            Comparison('dcnv4', 'dcnv4-softmax', 'higher', 'DCNv4: without softmax DCNv4 learns '
                       'faster', measure='early'),
            Comparison('dcnv4', 'dcnv4-softmax', 'higher', 'DCNv4: and ends higher')),
        {'dcnv3': 'DCNv3, as published: with', 'dcnv3-no-softmax': 'DCNv3 without',
         'dcnv4': 'DCNv4, as published: without', 'dcnv4-softmax': 'DCNv4 with'}),
    'sharing': Claim(
        'Shared or unshared weights', 'InternImage, section 4.4, figure 4 and table 6',
        'DCNv3 projects all nine samples of a pixel by one matrix. Nine matrices, as older '
        'deformable convolutions have, cost parameters and memory and gain nothing.',
        ('dcnv3', 'unshared'), (
            Comparison('dcnv3', 'unshared', 'alike', 'shared and unshared weights end alike',
                       '83.5 against 83.6'),
            Comparison('dcnv3', 'unshared', 'lower', 'they save parameters', '42.0 % saved (H)',
                       'params'),
            Comparison('dcnv3', 'unshared', 'lower', 'they save memory', '84.2 % saved (H)',
                       'memory')),
        {'dcnv3': 'shared', 'unshared': 'unshared'}),
    'design': Claim(
        "InternImage's design choices", 'InternImage, table 7 and its released settings',
        'Larger InternImages scale what each block adds by learned factors that start at 0.00001 '
        '(layer scale), normalise behind the operator instead of before it (post-norm), and the '
        "largest mix a pixel's own feature into its samples (centre feature scale). The smallest "
        'has none of the three. No figures are published for them. As they are for large models, '
        'our guess is that a small one does as well either way.',
        ('dcnv3', 'no-layer-scale', 'layer-scale-1e-5', 'post-norm', 'center'), (
            Comparison('no-layer-scale', 'dcnv3', 'alike',
                       '(our guess) layer scale from 1 or none: alike'),
            Comparison('layer-scale-1e-5', 'dcnv3', 'alike',
                       '(our guess) layer scale from 0.00001 or 1: alike'),
            Comparison('post-norm', 'dcnv3', 'alike',
                       '(our guess) post-norm or pre-norm: alike'),
            Comparison('center', 'dcnv3', 'alike',
                       '(our guess) with centre feature scale or without: alike')),
        {'dcnv3': 'layer scale from 1, pre-norm'}),
    'roadmap': Claim(
        'From ResNet to ConvNeXt', 'ConvNeXt, section 2 and table 10',
        'Step by step, a ResNet-50 becomes a ConvNeXt-T and gains 3 points at about the same cost. '
        'Each step keeps the changes of those before it.',
        tuple(f'step-{step}' for step in _STEPS), (
            Comparison('step-14', 'step-1', 'higher', 'the whole path gains',
                       '81.97 against 78.82'),
            Comparison('step-4', 'step-3', 'lower', 'depthwise convolution alone costs accuracy',
                       '78.28 against 79.51'),
            Comparison('step-5', 'step-4', 'higher', 'a wider network more than makes up for it',
                       '80.50 against 78.28'),
            Comparison('step-7', 'step-5', 'lower', 'wide within the block and the depthwise '
                       'convolution first costs some', '79.92 against 80.50'),
            Comparison('step-9', 'step-7', 'higher', 'kernels of 7x7 instead of 3x3 gain',
                       '80.57 against 79.92'),
            Comparison('step-12', 'step-9', 'higher', 'fewer activations and norms gain',
                       '81.41 against 80.57'),
            Comparison('step-14', 'step-12', 'higher', 'LayerNorm and separate downsampling '
                       'layers gain', '81.97 against 81.41')),
        steps={f'step-{step}': top1 for step, (_, top1) in _STEPS.items()}),
    'vit': Claim(
        'ViT with DCNv4', 'DCNv4, table 8',
        'In a plain vision transformer, DCNv4 in the place of attention is as good, and faster.',
        ('vit', 'vit-dcnv4'), (
            Comparison('vit-dcnv4', 'vit', 'alike', 'DCNv4 and attention end alike',
                       '81.9 against 81.8 (ViT-B)'),)),
}
