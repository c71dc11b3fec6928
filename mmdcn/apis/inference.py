"""A model on single images: what ``predict.py``, the analysis tools and services call."""
from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
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
from mmdcn.layers import replace_deformable_attention

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


@contextmanager
def task_scope(cfg: Config) -> Iterator[None]:
    """Registries of the config's task, and readable errors, while the block runs."""
    scope = cfg.get('default_scope', 'mmengine')
    import_task_modules(scope)
    with readable_errors(cfg), DefaultScope.overwrite_default_scope(scope):
        yield


def find_images(sources: Sequence[str], skip_bad: bool, out_dir: str | None = None,
                ) -> tuple[dict[str, str], int]:
    """Images of files, folders and patterns, and the number of damaged ones skipped.

    Folders are searched with all below them, hidden files and folders left out. The order is that
    of the sources, sorted by path in each; an image that several sources give counts once.

    Args:
        sources: Images, folders of images, or patterns as of :func:`glob.glob`, ``**`` included.
        skip_bad: Skip damaged images.
        out_dir: Folder of results; what lies there is no image, unless a source lies there, too.

    Returns:
        Each image with the folder in which it was looked for (of a pattern: the part before the
        first wildcard), and the number skipped.

    Raises:
        UserError: A source gives none, or an image is damaged and ``skip_bad`` is off.
    """
    found: dict[str, tuple[str, str]] = {}
    for source in sources:
        folder, paths = _search(source, out_dir)
        if not paths:
            raise UserError('images', f'got {source}', 'an image or a folder with images, or a '
                            f'pattern that matches some ({", ".join(sorted(SUFFIXES))})')
        for path in paths:
            place, name = os.path.split(path)
            found.setdefault(os.path.join(os.path.realpath(place), name), (path, folder))
    images = dict(found.values())
    problems = {image: problem for image in images if (problem := image_problem(image))}
    if problems and (not skip_bad or len(problems) == len(images)):
        lines = [f'  {image}: {problem}' for image, problem in list(problems.items())[:5]]
        raise UserError('images', f'{len(problems)} of {len(images)} images are damaged',
                        remedy='fix them, or carry on without them: `skip_bad=True`',
                        details='\n'.join(lines))
    return {image: folder for image, folder in images.items() if image not in problems}, \
        len(problems)


def _search(source: str, out_dir: str | None) -> tuple[str, list[str]]:
    """The folder where the images of a source are looked for, and the images, sorted."""
    if os.path.isfile(source):
        return os.path.dirname(source) or '.', [source]
    if os.path.isdir(source):
        folder, places = source, [source]
    else:
        wild = glob.magic_check.search(source)
        if not wild:
            return source, []
        folder = os.path.dirname(source[:wild.start()]) or '.'
        places = glob.glob(source, recursive=True)
    results = os.path.realpath(out_dir) if out_dir is not None else None
    if results is not None and _lies_below(folder, results):
        results = None
    paths = {path for place in places
             for path in (_walk(place) if os.path.isdir(place) else [place])
             if Path(path).suffix.lower() in SUFFIXES
             and (results is None or not _lies_below(path, results))}
    return folder, sorted(paths, key=lambda path: Path(path).parts)


def _walk(folder: str) -> Iterator[str]:
    """Files in a folder and below, each folder once; links are followed, but not upwards."""
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or (seen and _lies_below(os.path.dirname(here), real)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield from (os.path.join(here, name) for name in files if not name.startswith('.'))


def _lies_below(path: str, folder: str) -> bool:
    """Whether a path is a folder, given without links, or lies in it."""
    return Path(os.path.realpath(path)).is_relative_to(folder)


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
    if cfg.get('data_preprocessor') is not None:  # as mmengine's runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    replace_deformable_attention(model)
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


def looks_at_samples(cfg: Config) -> bool:
    """Whether a config's model takes samples of its data set, such as six views, not images.

    The class of such a data set says so: it has ``find_sample``, from a token to an index.
    """
    with task_scope(cfg), DATASETS.switch_scope_and_registry(None) as registry:
        kind = registry.get(config.innermost_dataset(cfg.test_dataloader.dataset).type)
    return hasattr(kind, 'find_sample')


class Predictor:
    """A network of any task in evaluation mode that takes image files one by one.

    Where its data set consists of samples of several pictures (:func:`looks_at_samples`), it takes
    their tokens instead of files.

    Attributes:
        cfg: Its config.
        model: The network.
        meta: What it knows about its classes: ``classes``, perhaps ``palette``.
    """

    def __init__(self, cfg: Config, checkpoint: str | None, device: str) -> None:
        """Build the network of a config; arguments and errors as :func:`build_model`."""
        self.cfg = cfg
        with task_scope(cfg):
            self._samples = None
            if looks_at_samples(cfg):
                self._samples = DATASETS.build(cfg.test_dataloader.dataset)
            self.model, self.meta = build_model(cfg, checkpoint, device)
            self._pipeline = build_pipeline(cfg)

    @property
    def backbone(self) -> nn.Module:
        """The network's backbone; UserError where it has none."""
        return find_backbone(self.model)

    def check(self, token: str) -> None:
        """UserError where the data set has no sample of this token."""
        self._samples.find_sample(token)

    def load(self, source: str | Path) -> dict[str, Any]:
        """A batch of one image, or sample, as the test pipeline gives it."""
        if self._samples is not None:
            loaded = self._samples.prepare_data(self._samples.find_sample(str(source)))
        else:
            loaded = self._pipeline({'img_path': str(source), 'img_id': 0})
        return pseudo_collate([loaded])

    def predict(self, source: str | Path | dict[str, Any]) -> BaseDataElement:
        """The prediction for an image file, a token, or what :meth:`load` gave.

        Returns:
            A data sample of the config's task.
        """
        with task_scope(self.cfg), torch.no_grad():
            batch = source if isinstance(source, dict) else self.load(source)
            return self.model.test_step(batch)[0]

    def read(self, path: str | Path) -> Tensor:
        """An image as the backbone gets it: resized, normalised, padded; (1, 3, H, W)."""
        with task_scope(self.cfg), torch.no_grad():
            return self.model.data_preprocessor(self.load(path), False)['inputs']

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
