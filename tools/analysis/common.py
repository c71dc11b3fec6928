"""What the analysis tools share: options, models, input images, sampling points of layers."""
from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from mmcls_custom.engine import UserError, cli, config, inference, record_features
from ops_dcn import DCNv3, DCNv4, DCNv4Conv2d, reference

# Pictures are written, never shown: no display is needed.
matplotlib.use('Agg')

_LAYERS = (DCNv3, DCNv4, DCNv4Conv2d)


def build_parser(prog: str, description: str, images: str = '+') -> argparse.ArgumentParser:
    """Command line that every analysis tool has; ``images`` says how many it needs."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument('config', help='config file of a classifier, detector or segmentor')
    parser.add_argument('checkpoint', help="checkpoint file, or 'none' for the untrained network")
    parser.add_argument('images', metavar='IMAGE', nargs=images, help='image or folder of images')
    parser.add_argument('--out-dir', default='analysis', help='where the results are written')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='change keys of the config')
    cli.add_checkpoint_options(parser)
    return parser


class System:
    """A network of any task, and images as it sees them.

    Attributes:
        backbone: Its backbone, in evaluation mode.
        images: The image files.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        cfg = config.load_config(args.config, args.cfg_options)
        config.require(cfg, 'test_dataloader')
        untrained = args.checkpoint == 'none'
        if not untrained:
            config.check_file(args.checkpoint, 'checkpoint')
        config.check_writable(args.out_dir, '--out-dir')
        self.images = [path for source in args.images
                       for path in inference.find_images(source, skip_bad=False)[0]]
        with inference.task_scope(cfg):
            self.model, _ = inference.build_model(cfg, None if untrained else args.checkpoint,
                                                  args.device)
            self._pipeline = inference.build_pipeline(cfg)
        self._cfg = cfg
        self.backbone = find_backbone(self.model)
        self.device = args.device
        self.out_dir = Path(args.out_dir)

    def read(self, path: Path) -> Tensor:
        """An image as the backbone gets it: resized, normalised, padded; (1, 3, H, W)."""
        with inference.task_scope(self._cfg):
            data = self._pipeline({'img_path': str(path), 'img_id': 0})
            with torch.no_grad():
                return self.model.data_preprocessor(pseudo_collate([data]), False)['inputs']

    def show(self, inputs: Tensor) -> np.ndarray:
        """What :meth:`read` gave as a picture: (H, W, 3) RGB, uint8."""
        preprocessor = self.model.data_preprocessor
        picture = inputs[0]
        if getattr(preprocessor, '_enable_normalize', False):
            picture = picture * preprocessor.std + preprocessor.mean
        # Images are read as BGR; mmpretrain has its own name for turning them round.
        names = ('to_rgb', '_channel_conversion')
        is_rgb = any(getattr(preprocessor, name, False) for name in names)
        picture = picture if is_rgb else picture.flip(0)
        return picture.clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()


def find_backbone(model: nn.Module) -> nn.Module:
    """The outermost submodule called ``backbone``.

    Raises:
        UserError: The model has none.
    """
    for name, module in model.named_modules():
        if name.rpartition('.')[2] == 'backbone':
            return module
    raise UserError(f'model is not valid: {type(model).__name__} has no backbone, expected a '
                    'classifier, detector or segmentor')


@dataclass(frozen=True)
class Sampling:
    """Where one deformable layer samples, and how much each sample counts.

    Attributes:
        points: (N, Ho, Wo, G, K, 2), (x, y) in pixels of the layer's input; 0 is the center of the
            first pixel.
        weights: (N, Ho, Wo, G, K), the factor of each sample.
        grid: (N, Ho, Wo, G, K, 2), the points without learned offsets.
        size: (H, W) of the layer's input.
    """

    points: Tensor
    weights: Tensor
    grid: Tensor
    size: tuple[int, int]

    def outside(self) -> Tensor:
        """Which samples lie beyond the zeros around the input and contribute nothing."""
        x, y = self.points.unbind(-1)
        height, width = self.size
        return ~((x > -1) & (x < width) & (y > -1) & (y < height))


@contextmanager
def record_sampling(model: nn.Module) -> Iterator[dict[str, Sampling]]:
    """Record the sampling of every deformable layer while the block runs the model.

    Yields:
        A dictionary that is filled when the block ends, by the layers' names, in their order. Of
        a layer that is called several times it holds the first call.

    Raises:
        UserError: The model has no deformable layer, or the block called none.
    """
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, _LAYERS)}
    if not layers:
        raise UserError(f'model is not valid: {type(model).__name__} has no deformable layer, '
                        'expected DCNv3 or DCNv4 layers, as InternImage and FlashInternImage have')
    sources = [f'{name}.{source}' for name, module in layers.items() for source in _sources(module)]
    samplings: dict[str, Sampling] = {}
    with record_features(model, sources) as outputs:
        yield samplings
    for name, module in layers.items():
        found = [outputs[f'{name}.{source}'] for source in _sources(module)]
        samplings[name] = _sampling(module, found)


def _sources(module: nn.Module) -> tuple[str, ...]:
    """Submodules whose outputs decide where and how a layer samples."""
    if isinstance(module, DCNv3):
        return 'offset', 'mask'
    return ('offset_mask', 'value_proj') if isinstance(module, DCNv4Conv2d) else ('offset_mask',)


def _sampling(module: nn.Module, outputs: Sequence[Tensor]) -> Sampling:
    options = dict(module.options)
    groups = options.pop('groups')
    size = tuple(outputs[0].shape[1:3])
    if isinstance(module, DCNv3):
        offset = outputs[0].unflatten(-1, (groups, -1, 2))
        weights = outputs[1].unflatten(-1, (groups, -1)).softmax(-1)
    else:
        kernel = reference.pair(options['kernel_size'])
        count = math.prod(kernel) - int(options.get('remove_center', False))
        offset, weights = reference.unpack_dcnv4(outputs[0], groups, count)
        size = tuple(outputs[-1].shape[1:3])
    points = reference.sampling_points(size, offset, **options)
    grid = reference.sampling_points(size, torch.zeros_like(offset), **options)
    return Sampling(points, weights, grid, size)


def stride_of(size: tuple[int, int], image_size: tuple[int, int]) -> int:
    """Pixels of the image per pixel of a map of ``size``: the nearest power of two."""
    return 2 ** round(math.log2(max(image_size) / max(size)))


def first_center(backbone: nn.Module, stride: int) -> float:
    """Where the center of the first pixel of a map lies in the image, in image pixels.

    Convolutions that pad both sides alike (3x3, stride 2, padding 1) keep the first center at 0;
    behind patches without padding it is in the middle of the first ``stride`` pixels.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1:
            padding = module.padding if isinstance(module.padding, tuple) else (0, 0)
            return 0.0 if module.kernel_size[0] == 2 * padding[0] + 1 else (stride - 1) / 2
    return (stride - 1) / 2
