"""A model on single images: what ``predict.py``, the analysis tools and services call."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmdcn.apis import config
from mmdcn.checkpoints import load_state_dict, read_checkpoint, read_dataset_meta
from mmdcn.data.files import image_problem
from mmdcn.engine.build_errors import readable_errors
from mmdcn.engine.runner import import_task_modules
from mmdcn.errors import UserError

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


@contextmanager
def task_scope(cfg: Config) -> Iterator[None]:
    """Registries of the config's task, and readable errors, while the block runs."""
    scope = cfg.get('default_scope', 'mmengine')
    import_task_modules(scope)
    with readable_errors(cfg), DefaultScope.overwrite_default_scope(scope):
        yield


def find_images(source: str, skip_bad: bool) -> tuple[list[Path], int]:
    """Images of a file or folder, and the number of damaged ones skipped.

    Args:
        source: Image, or folder of images.
        skip_bad: Skip damaged images.

    Raises:
        UserError: There is none, or one is damaged and ``skip_bad`` is off.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise UserError('image', f'got {source}',
                        f'an image or a folder with images ({", ".join(sorted(SUFFIXES))})')
    problems = {image: problem for image in found if (problem := image_problem(str(image)))}
    if problems and (not skip_bad or len(problems) == len(found)):
        lines = [f'  {image}: {problem}' for image, problem in list(problems.items())[:5]]
        raise UserError('image', f'{len(problems)} of {len(found)} images are damaged',
                        remedy='fix them, or carry on without them: `skip_bad=True`',
                        details='\n'.join(lines))
    return [image for image in found if image not in problems], len(problems)


def build_model(cfg: Config, checkpoint_path: str | None,
                device: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode, and what it knows about its classes.

    Args:
        cfg: A whole config with ``test_dataloader``.
        checkpoint_path: Its weights; None initialises the model as training would.
        device: Where the model is put.

    Raises:
        CheckpointError: The checkpoint cannot be read safely, belongs to another model, or names
            its classes in an unknown form.
    """
    checkpoint = {} if checkpoint_path is None else read_checkpoint(checkpoint_path)
    names = read_dataset_meta(checkpoint, str(checkpoint_path))
    model = MODELS.build(cfg.model)
    if checkpoint_path is None:
        model.init_weights()
    else:
        load_state_dict(model, checkpoint['state_dict'], source=checkpoint_path)
    dataset = config.innermost_dataset(cfg.test_dataloader.dataset)
    meta = dict(getattr(DATASETS.get(dataset.type), 'METAINFO', {}))
    meta.update(dataset.get('metainfo') or {})
    meta.update(names)
    return model.to(device).eval(), meta


def build_pipeline(cfg: Config) -> Compose:
    """The test pipeline without the steps that read annotations."""
    steps = config.innermost_dataset(cfg.test_dataloader.dataset).pipeline
    return Compose([step for step in steps
                    if not ('Load' in step['type'] and 'Annotation' in step['type'])])


class Predictor:
    """A network of any task in evaluation mode that takes image files one by one.

    Attributes:
        cfg: Its config.
        model: The network.
        meta: What it knows about its classes: ``classes``, perhaps ``palette``.
    """

    def __init__(self, cfg: Config, checkpoint: str | None, device: str) -> None:
        """Build the network of a config; arguments and errors as :func:`build_model`."""
        self.cfg = cfg
        with task_scope(cfg):
            self.model, self.meta = build_model(cfg, checkpoint, device)
            self._pipeline = build_pipeline(cfg)

    @property
    def backbone(self) -> nn.Module:
        """The network's backbone; UserError where it has none."""
        return find_backbone(self.model)

    def _load(self, path: Path) -> dict[str, Any]:
        """A batch of one image as the test pipeline gives it."""
        return pseudo_collate([self._pipeline({'img_path': str(path), 'img_id': 0})])

    def predict(self, path: Path) -> BaseDataElement:
        """The prediction for an image file, a data sample of the config's task."""
        with task_scope(self.cfg):
            return self.model.test_step(self._load(path))[0]

    def read(self, path: Path) -> Tensor:
        """An image as the backbone gets it: resized, normalised, padded; (1, 3, H, W)."""
        with task_scope(self.cfg), torch.no_grad():
            return self.model.data_preprocessor(self._load(path), False)['inputs']

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
    raise UserError('model', f'{type(model).__name__} has no backbone',
                    'a classifier, detector or segmentor')
