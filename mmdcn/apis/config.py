"""Reads a config and changes it as its user asks, with readable errors."""
from __future__ import annotations

import ast
import inspect
import os
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction
from torch.utils.data import DataLoader

from mmdcn.engine import packages  # noqa: F401  (bases of mmseg resolve)
from mmdcn.errors import UserError, suggest


def load_config(path: str, cfg_options: list[str] | None = None) -> Config:
    """Read a config, import what it registers, and apply ``KEY=VALUE`` options.

    Args:
        path: Config file.
        cfg_options: Overrides such as ``train_cfg.max_iters=10``. The key must exist in the
            config, or be an argument of something that has a ``type``.

    Raises:
        UserError: The file is missing, malformed, or an option names no key of it.
    """
    if not Path(path).is_file():
        raise UserError('config', f'got {path}', 'an existing file', _similar_files(Path(path)))
    try:
        cfg = Config.fromfile(path)
    except SyntaxError as error:
        raise UserError('config', f'{path}: {error}') from error
    except (FileNotFoundError, ImportError, KeyError, NameError, TypeError, ValueError,
            AttributeError, OSError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise UserError('config', f'{path}: {type(error).__name__}: {reason}') from error
    if not isinstance(cfg.get('model'), dict):
        raise UserError('config', f'{path} has no model', 'model = dict(...)',
                        'files under _base_ are parts, not configs to run')
    for option in cfg_options or []:
        _apply_option(cfg, option)
    return cfg


def _similar_files(path: Path, pattern: str = '*.py') -> str:
    """What to do about a file that does not exist."""
    folder = path.parent
    if not folder.is_dir():
        return f'the folder {folder} does not exist'
    return suggest(path.name, [entry.name for entry in folder.glob(pattern)]) or 'check the path'


def _apply_option(cfg: Config, option: str) -> None:
    """Set one ``KEY=VALUE`` in place."""
    key, equals, text = option.partition('=')
    if not equals or not key:
        raise UserError('cfg_options', f'got {option!r}', 'KEY=VALUE')
    value = _parse_value(key, text)
    node: Any = cfg._cfg_dict
    parts = key.split('.')
    for depth, part in enumerate(parts):
        if isinstance(node, list | tuple):
            if not part.lstrip('-').isdigit() or not -len(node) <= int(part) < len(node):
                raise UserError('cfg_options', f'got {key!r}', f'an index below {len(node)} after '
                                f'{".".join(parts[:depth])}')
            part = int(part)
        elif isinstance(node, dict) and ('type' in node or not node):
            # New arguments are for the constructor to judge, which knows those with a default.
            node.setdefault(part, ConfigDict())
        elif isinstance(node, dict) and part in (unnamed := _unnamed('.'.join(parts[:depth]))):
            node.setdefault(part, ConfigDict(unnamed[part]))
        elif not isinstance(node, dict) or part not in node:
            above = '.'.join(parts[:depth]) or 'the config'
            known = [*node, *_unnamed(above)] if isinstance(node, dict) else []
            raise UserError('cfg_options', f'got {key!r}', f'a key of {above}',
                            suggest(part, known) or f'it has {", ".join(known)}')
        if depth == len(parts) - 1:
            node[part] = ConfigDict(value) if isinstance(value, dict) else value
        else:
            node = node[part]


def _unnamed(above: str) -> dict[str, dict[str, Any]]:
    """What exists below a key though the config need not name it."""
    if above == 'default_hooks':
        return {'finite_loss': {'type': 'FiniteLossHook'}}
    if above.endswith('_dataloader'):
        return {name: {} for name in inspect.signature(DataLoader).parameters}
    return {}


def _parse_value(key: str, text: str) -> Any:
    """A Python literal, ``a,b`` as a list, true/false, or the text itself."""
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text[:1] in '([{\'"' and text:
        try:
            if text[0] in '([' and text.count('(') == text.count(')') \
                    and text.count('[') == text.count(']'):
                return DictAction._parse_iterable(text)
        except AssertionError:
            pass
        raise UserError('cfg_options', f'got {key}={text}', 'a number, a word, a list such as '
                        '"[1,2]", or a dictionary in quotes')
    return [_parse_value(key, part) for part in text.split(',')] if ',' in text else text


def set_work_dir(cfg: Config, work_dir: str | None) -> None:
    """Set ``cfg.work_dir`` (option, then config, then ``work_dirs/NAME``) and check it is writable.

    Nothing is created.

    Raises:
        UserError: The folder cannot be written, or holds the config's source, in whose place the
            run would write the whole config.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename).stem)
    check_writable(cfg.work_dir, 'work_dir')
    copy = Path(cfg.work_dir) / Path(cfg.filename).name
    # What an earlier run wrote there may be replaced.
    if copy.exists() and copy.samefile(cfg.filename) \
            and copy.read_text() != Config.fromfile(copy).pretty_text:
        raise UserError('work_dir', f'got {cfg.work_dir}, where the whole config would replace '
                        f'{copy}', 'a folder without the config', 'choose another')


def check_writable(folder: str, name: str) -> None:
    """Check that a folder can be written or be made. Creates nothing.

    Args:
        folder: Where something is to be written.
        name: Argument that names it.

    Raises:
        UserError: It cannot.
    """
    existing = Path(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(name, f'{existing} is a file', 'a folder', 'choose another')
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(name, f'{existing} is not writable',
                        remedy='choose another folder or change its permissions')


def check_file(path: str, name: str) -> None:
    """Check that a local file exists.

    Args:
        path: The file.
        name: Argument that names it.

    Raises:
        UserError: It does not.
    """
    if not Path(path).is_file():
        raise UserError(name, f'got {path}', 'an existing file',
                        _similar_files(Path(path), '*.pth'))


def require(cfg: Config, *keys: str) -> None:
    """Raise UserError if the config lacks one of the keys."""
    lacking = [key for key in keys if cfg.get(key) is None]
    if lacking:
        raise UserError('config', f'{cfg.filename} has no {", ".join(lacking)}',
                        remedy='this tool needs it')


def set_amp(cfg: Config, enabled: bool) -> None:
    """Turn on mixed precision training: float16 with loss scaling on a GPU, bfloat16 on a CPU."""
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        return
    on_gpu = torch.cuda.is_available()
    kind = wrapper.get('type', 'OptimWrapper')
    if enabled and kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError('amp', f'optim_wrapper.type is {kind}', 'OptimWrapper or AmpOptimWrapper')
    if kind == 'AmpOptimWrapper' or (enabled and kind == 'OptimWrapper'):
        wrapper.type = 'AmpOptimWrapper' if on_gpu else 'CpuAmpOptimWrapper'
        if on_gpu:
            wrapper.setdefault('loss_scale', 'dynamic')
        else:
            wrapper.pop('loss_scale', None)
            wrapper.pop('dtype', None)


def set_auto_scale_lr(cfg: Config) -> None:
    """Enable scaling of the learning rate with the batch size.

    Raises:
        UserError: The config does not say which batch size its learning rate is for.
    """
    scale = cfg.get('auto_scale_lr')
    if not isinstance(scale, dict) or 'base_batch_size' not in scale:
        raise UserError('auto_scale_lr', 'the config has no auto_scale_lr.base_batch_size',
                        'the batch size its learning rate is for',
                        'add auto_scale_lr = dict(base_batch_size=...)')
    scale.enable = True


def set_randomness(cfg: Config, seed: int | None, deterministic: bool) -> None:
    """Write seed and determinism into ``cfg.randomness``."""
    randomness = dict(cfg.get('randomness') or {'seed': None})
    if seed is not None:
        randomness['seed'] = seed
    if deterministic:
        randomness['deterministic'] = True
        # cuBLAS reads this when it is first used; without it deterministic mode raises on a GPU.
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    cfg.randomness = ConfigDict(randomness)


def set_log_backends(cfg: Config) -> None:
    """Make sure that JSON and TensorBoard logs are written."""
    visualizer = cfg.get('visualizer')
    if not isinstance(visualizer, dict):
        cfg.visualizer = visualizer = ConfigDict(type='Visualizer')
    backends = list(visualizer.get('vis_backends') or [])
    present = {backend['type'] for backend in backends}
    for name in ('LocalVisBackend', 'TensorboardVisBackend'):
        if not any(re.search(name + '$', kind) for kind in present):
            backends.append(ConfigDict(type=name))
    visualizer.vis_backends = backends


def innermost_dataset(dataset: ConfigDict) -> ConfigDict:
    """The config of the data set that reads files, below its wrappers."""
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def set_tta(cfg: Config) -> None:
    """Wrap the model and the test pipeline for test-time augmentation.

    Raises:
        UserError: The config does not define one.
    """
    lacking = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if lacking:
        raise UserError('tta', f'the config has no {" and no ".join(lacking)}',
                        remedy='define both, or drop `tta`')
    innermost_dataset(cfg.test_dataloader.dataset).pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def named_files(cfg: Config) -> list[str]:
    """Files that exist and that a config names: itself, annotations, weights, ..."""
    texts, nodes = [], [cfg._cfg_dict.to_dict()]
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, dict | list | tuple):
            nodes.extend(node.values() if isinstance(node, dict) else node)
    roots = ['', *(text for text in texts if os.path.isdir(text))]
    files = {os.path.join(root, text) for root in roots for text in texts}
    return [cfg.filename, *sorted(path for path in files if os.path.isfile(path))]


def set_test_outputs(cfg: Config, out: str | None, show_dir: str | None) -> None:
    """Have predictions written to a file and pictures into a folder.

    Args:
        cfg: Config, changed in place.
        out: ``.json`` for COCO's result format, ``.pkl`` for all that the model puts out.
        show_dir: Folder of the pictures.

    Raises:
        UserError: ``out`` is neither, or .json where nothing is measured as COCO does, or
            ``show_dir`` cannot be written.
    """
    if out is not None:
        metrics = cfg.test_evaluator
        metrics = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
        coco = [metric for metric in metrics
                if str(metric.get('type')).rpartition('.')[2] == 'CocoMetric']
        if Path(out).suffix == '.pkl':
            cfg.test_evaluator = [*metrics, ConfigDict(type='DumpResults', out_file_path=out)]
        elif Path(out).suffix != '.json':
            raise UserError('out', f'got {out}', "a name ending in .json (COCO's result format) "
                            'or .pkl')
        elif not coco:
            raise UserError('out', f"got {out}, COCO's result format, while the config has no "
                            'CocoMetric', 'a name ending in .pkl',
                            '`metrics` names the file of the metrics')
        else:
            coco[0].out_file = out
            cfg.test_evaluator = metrics
    if show_dir is not None:
        check_writable(show_dir, 'show_dir')
        cfg.custom_hooks = [*cfg.get('custom_hooks', []),
                            ConfigDict(type='DrawPredictionsHook', out_dir=show_dir)]
