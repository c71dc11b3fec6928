"""What a run takes over from a checkpoint: known keys, as data. No text of it becomes a path."""
from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmdcn.checkpoints import CheckpointError, read_dataset_meta

_HUB = {'log_scalars', 'runtime_info', 'resumed_keys'}
# What the run itself knows better, or marks as not to be resumed.
_OWN_INFO = ('epoch', 'iter', 'max_epochs', 'max_iters', 'last_ckpt', 'loop_stage')
_LARGEST = 2 ** 63
REMEDY = ('use the config it was trained with, or start anew from its weights: '
          "`cfg_options=['load_from=FILE']`")
_SEEDS = 2 ** 32


def resumable(checkpoint: Mapping[str, Any], runner: Runner, source: str) -> dict[str, Any]:
    """The part of a checkpoint that a run goes on from.

    mmengine runs a config that it finds in a file, deletes checkpoints under the names found there,
    and lets the state of a schedule replace whatever the schedule has. Here numbers, tensors and
    log histories are taken over, under the names that this run uses itself; a best checkpoint is
    known again if it lies among the checkpoints of this run.

    Args:
        checkpoint: What :func:`mmdcn.checkpoints.read_checkpoint` gave.
        runner: The run, built but not begun.
        source: Name of the file, for messages.

    Returns:
        A checkpoint for mmengine's ``Runner.resume``.

    Raises:
        CheckpointError: It holds weights alone, or numbers where this run has none.
    """
    _check_training_state(checkpoint, source)
    _check_progress(checkpoint['meta'], runner, source)
    kept = {'meta': _meta(checkpoint['meta']), 'state_dict': checkpoint['state_dict'],
            'message_hub': _message_hub(checkpoint['message_hub'], runner)}
    if isinstance(checkpoint.get('ema_state_dict'), Mapping):
        kept['ema_state_dict'] = {key: value for key, value in checkpoint['ema_state_dict'].items()
                                  if isinstance(key, str) and _is_tensor(value)}
    if 'optimizer' in checkpoint:
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        kept['optimizer'] = _optimizer(checkpoint['optimizer'], runner.optim_wrapper.state_dict(),
                                       f'optimizer of {source}')
    if 'param_schedulers' in checkpoint and runner.param_schedulers is not None:
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        kept['param_schedulers'] = _schedules(checkpoint['param_schedulers'],
                                              runner.param_schedulers,
                                              f'param_schedulers of {source}')
    return kept


def warn_of_other_classes(checkpoint: Mapping[str, Any], runner: Runner, source: str) -> None:
    """Say in the log where a run starts from weights for as many classes of other names.

    Args:
        checkpoint: What :func:`mmdcn.checkpoints.read_checkpoint` gave.
        runner: The run, with its data.
        source: Name of the file.

    Raises:
        CheckpointError: The classes of the file are in no known form.
    """
    old = read_dataset_meta(checkpoint, source).get('classes')
    data = getattr(getattr(runner.train_dataloader, 'dataset', None), 'metainfo', None) or {}
    new = data.get('classes')
    if not old or not isinstance(new, list | tuple) or len(new) != len(old):
        return
    other = [i for i, (was, now) in enumerate(zip(old, new, strict=True)) if was != now]
    if other:
        runner.logger.warning(
            f'{source} was trained on other classes than the data has, though on as many: '
            f'{len(other)} names differ, the first is {old[other[0]]!r} for {new[other[0]]!r}. '
            'The rows of its class layers were loaded, and mean these until training changes them.')


def _check_training_state(checkpoint: Mapping[str, Any], source: str) -> None:
    """Refuse to resume from weights alone."""
    meta = checkpoint.get('meta')
    lacking = [f'meta.{key}' for key in ('epoch', 'iter')
               if not isinstance(meta, Mapping) or not _is_count(meta.get(key))]
    hub = checkpoint.get('message_hub')
    if not isinstance(hub, Mapping) or not set(hub) >= _HUB \
            or not all(isinstance(hub[key], Mapping) for key in _HUB):
        lacking.append('message_hub')
    if lacking:
        raise CheckpointError('resume', f'{source} lacks {", ".join(lacking)}',
                              'a checkpoint that train.py wrote', 'to start anew from its weights '
                              "use `cfg_options=['load_from=FILE']`")


def _check_progress(meta: Mapping[str, Any], runner: Runner, source: str) -> None:
    """Refuse a file from beyond the end of this run; the loop would count up to it first."""
    loop = runner.train_loop
    for kind, key in ((IterBasedTrainLoop, 'iter'), (EpochBasedTrainLoop, 'epoch')):
        last = getattr(runner, f'max_{key}s')
        if isinstance(loop, kind) and meta[key] > last:
            raise CheckpointError('resume', f'{source} was written at {key} {meta[key]}',
                                  f'at most train_cfg.max_{key}s={last}',
                                  'raise it to train on')


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_tensor(value: Any) -> bool:
    return (isinstance(value, torch.Tensor) and value.layout is torch.strided
            and not value.is_quantized and not value.is_meta and not value.is_nested)


def _is_number(value: Any) -> bool:
    """Whether it is a tensor, a number that fits a register, true, false or nothing."""
    return value is None or _is_tensor(value) or type(value) in (bool, float) or (
        type(value) is int and -_LARGEST <= value < _LARGEST)


def _is_numeric(value: Any, depth: int = 3, known: set[tuple[int, int]] | None = None) -> bool:
    """Whether it is made of numbers, in lists and dictionaries within a few others."""
    if not isinstance(value, Mapping | list | tuple | deque):
        return _is_number(value)
    known = set() if known is None else known
    if (id(value), depth) in known:  # a list can hold another a thousand times, and so on
        return True
    items = value.values() if isinstance(value, Mapping) else value
    if depth == 0 or not all(_is_numeric(item, depth - 1, known) for item in items) or (
            isinstance(value, Mapping) and any(type(key) not in (str, int) for key in value)):
        return False
    known.add((id(value), depth))
    return True


def _fitted(found: Any, own: Any, name: str) -> Any:
    """What was found where the run has numbers, too; text and objects stay the run's own."""
    if not _is_numeric(own):
        return own
    kinds = (Mapping, 'a dictionary'), (list | tuple | deque, 'a list')
    kind, word = next(((kind, word) for kind, word in kinds if isinstance(own, kind)),
                      (None, 'a number'))
    fits = _is_number(found) if kind is None else isinstance(found, kind) and _is_numeric(found)
    if not fits:
        raise CheckpointError(
            'resume', f'{name} is a {type(found).__name__} that this config has no use for',
            word if kind is None else f'{word} of numbers', REMEDY)
    return found if kind is None else type(own)(found)


def _other_kind(name: str, found: Any, expected: str) -> CheckpointError:
    return CheckpointError('resume', f'{name} is a {type(found).__name__}', expected, REMEDY)


def _all_fitted(found: Any, own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The run's own items, with the numbers that were found under their names."""
    if not isinstance(found, Mapping):
        raise _other_kind(name, found, 'a dictionary')
    return {key: _fitted(found[key], value, f'{name}: {key}') if key in found else value
            for key, value in own.items()}


def _meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Where the run stood, and its classes, which mmengine compares and nothing else."""
    kept = {key: meta[key] for key in ('epoch', 'iter')}
    if _is_count(meta.get('seed')) and meta['seed'] < _SEEDS:
        kept['seed'] = meta['seed']
    return {**kept, 'dataset_meta': meta.get('dataset_meta')}


def _message_hub(hub: Mapping[str, Any], runner: Runner) -> dict[str, Any]:
    """Log histories and numbers; the names of checkpoints where these are this run's."""
    scalars = {key: value for key, value in hub['log_scalars'].items()
               if isinstance(key, str) and isinstance(value, HistoryBuffer)}
    info: dict[str, Any] = {}
    for key, value in hub['runtime_info'].items():
        if not isinstance(key, str) or key in _OWN_INFO:
            continue
        if key.startswith('best_ckpt'):
            found = _kept_checkpoint(value, runner)
            info.update({key: found} if found else {})
        elif key == 'keep_ckpt_ids':
            info[key] = _kept_steps(value, runner)
        elif _is_number(value) or (_is_numeric(value) and not key.startswith('best_score')):
            info[key] = value
    return {'log_scalars': scalars, 'runtime_info': info,
            'resumed_keys': dict.fromkeys((*scalars, *info), True)}


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def _checkpoint_folder(runner: Runner) -> Path:
    """Where the run writes its checkpoints, by the rule of mmengine's hook."""
    hook = _checkpoint_hook(runner)
    work_dir = Path(runner.work_dir)
    if hook is None or hook.out_dir in (None, runner.work_dir):
        return work_dir
    return Path(hook.out_dir) / work_dir.name


def _kept_checkpoint(value: Any, runner: Runner) -> str | None:
    """Path of a best checkpoint of that name among those of this run, which may have moved."""
    hook = _checkpoint_hook(runner)
    name = PureWindowsPath(value).name if isinstance(value, str) else ''
    if hook is None or '\0' in name or not name.startswith('best_') \
            or not name.endswith(Path(hook.filename_tmpl).suffix or '.pth'):
        return None
    path = _checkpoint_folder(runner) / name
    return str(path) if path.is_file() else None


def _kept_steps(value: Any, runner: Runner) -> list[int]:
    """Those of the listed steps whose checkpoints this run has."""
    hook = _checkpoint_hook(runner)
    steps = value if isinstance(value, list | tuple) and hook is not None else ()
    folder = _checkpoint_folder(runner)
    return [step for step in steps
            if _is_count(step) and (folder / hook.filename_tmpl.format(step)).is_file()]


def _optimizer(found: Any, own: Mapping[str, Any], name: str) -> dict[str, Any]:
    """State of an optimizer, or of several by name, as their ``load_state_dict`` takes it."""
    if not isinstance(found, Mapping):
        raise _other_kind(name, found, 'a dictionary')
    if 'param_groups' not in own:
        return {key: _optimizer(found.get(key), part, f'{name}: {key}')
                for key, part in own.items()}
    groups, states = found.get('param_groups'), found.get('state')
    if not isinstance(groups, list) or not isinstance(states, Mapping):
        raise CheckpointError('resume', f'{name} lacks param_groups or state',
                              'the state of an optimizer', REMEDY)
    if len(groups) != len(own['param_groups']):
        raise ValueError(f'its optimizer has {len(groups)} parameter groups, this one '
                         f'{len(own["param_groups"])}')
    for key, state in states.items():
        if type(key) is not int or not isinstance(state, Mapping) or not _is_numeric(state, 2):
            raise CheckpointError('resume', f'{name}: state {key!r} is not made of numbers',
                                  'tensors and numbers by name, for each parameter', REMEDY)
    more = {key: _fitted(found[key], own[key], f'{name}: {key}')
            for key in ('loss_scaler', 'base_param_settings') if key in own and key in found}
    return {'state': states, **more, 'param_groups': [
        _all_fitted(group, mine, f'{name}: group {number}')
        for number, (group, mine) in enumerate(zip(groups, own['param_groups'], strict=True))]}


def _schedules(found: Any, own: Any, name: str) -> Any:
    """States of schedules, in a list or in lists by name, as ``load_state_dict`` takes them."""
    if isinstance(own, Mapping):
        if not isinstance(found, Mapping):
            raise _other_kind(name, found, 'a dictionary')
        return {key: _schedules(found.get(key), part, f'{name}: {key}')
                for key, part in own.items()}
    if not isinstance(found, list):
        raise _other_kind(name, found, 'a list')
    return [_all_fitted(state, schedule.state_dict(), f'{name}: {number}')
            for number, (state, schedule) in enumerate(zip(found, own, strict=False))]
