"""Models, images and test pipelines for the tools that run a model on single images."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

from mmcls_custom.checkpoints import load_state_dict, read_checkpoint
from mmcls_custom.engine import config
from mmcls_custom.engine.data_check import image_problem
from mmcls_custom.engine.errors import UserError
from mmcls_custom.engine.runner import import_task_modules, readable_errors

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


@contextmanager
def task_scope(cfg: Config) -> Iterator[None]:
    """Registries of the config's task, and readable errors, while the block runs."""
    scope = cfg.get('default_scope', 'mmengine')
    import_task_modules(scope)
    with readable_errors(cfg), DefaultScope.overwrite_default_scope(scope):
        yield


def find_images(source: str, skip_bad: bool) -> tuple[list[Path], int]:
    """Images of a file or folder, and the number of damaged ones left out.

    Raises:
        UserError: There is none, or one is damaged and ``skip_bad`` is off.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise UserError(f'image is not valid: got {source}, expected an image or a folder with '
                        f'images ({", ".join(sorted(SUFFIXES))})')
    problems = {image: problem for image in found if (problem := image_problem(str(image)))}
    if problems and (not skip_bad or len(problems) == len(found)):
        lines = [f'  {image}: {problem}' for image, problem in list(problems.items())[:5]]
        remedy = 'mend them, or carry on without them: --skip-bad-images'
        raise UserError('\n'.join([f'{len(problems)} of {len(found)} images are damaged; {remedy}',
                                   *lines]))
    return [image for image in found if image not in problems], len(problems)


def build_model(cfg: Config, checkpoint_path: str | None,
                device: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode, and what it knows about its classes.

    Args:
        cfg: A whole config with ``test_dataloader``.
        checkpoint_path: Its weights; None initialises the model as training would.
        device: Where the model is put.

    Raises:
        CheckpointError: The checkpoint cannot be read safely or belongs to another model.
    """
    checkpoint = {} if checkpoint_path is None else read_checkpoint(checkpoint_path)
    model = MODELS.build(cfg.model)
    if checkpoint_path is None:
        model.init_weights()
    else:
        load_state_dict(model, checkpoint['state_dict'], source=checkpoint_path)
    dataset = config.innermost_dataset(cfg.test_dataloader.dataset)
    meta = dict(getattr(DATASETS.get(dataset.type), 'METAINFO', {}))
    meta.update(dataset.get('metainfo') or {})
    meta.update(checkpoint.get('meta', {}).get('dataset_meta') or {})
    return model.to(device).eval(), meta


def build_pipeline(cfg: Config) -> Compose:
    """The test pipeline without the steps that read annotations."""
    steps = config.innermost_dataset(cfg.test_dataloader.dataset).pipeline
    return Compose([step for step in steps
                    if not ('Load' in step['type'] and 'Annotation' in step['type'])])
