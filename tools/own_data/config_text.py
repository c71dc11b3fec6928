"""The config that trains a base config's model on a data set: text that a person can go on with."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode

from mmdcn.apis.config import innermost_dataset
from mmdcn.errors import UserError
from tools.own_data.survey import Survey

STYLE = dict(based_on_style='pep8', column_limit=100, split_before_named_assigns=False,
             split_before_expression_after_opening_paren=True)
PASSES = 30  # over the data, where no number of iterations is given
LEAST, MOST = 1000, 90000
_PARTS = ('train', 'val')


def plan(base: Config, survey: Survey, batch: int | None, gpus: int,
         iterations: int | None) -> dict[str, Any]:
    """Batch, learning rate and length of the training.

    The learning rate is the base's, times the new total batch over the base's. The length is
    :data:`PASSES` times over the pictures, within :data:`LEAST` and :data:`MOST` iterations.

    Args:
        base: The resolved base config.
        survey: What there is to train on.
        batch: Pictures for each GPU; None takes the base's.
        gpus: Number of GPUs, or of processes.
        iterations: Length; None as above.

    Returns:
        ``batch``, ``total``, ``lr``, ``iterations``.

    Raises:
        UserError: The base does not say for which batch its learning rate is.
    """
    own = base.get('auto_scale_lr', {}).get('base_batch_size')
    if not own:
        raise UserError('base', 'it has no auto_scale_lr.base_batch_size',
                        'a config that says for which batch its learning rate is')
    batch = batch or base.train_dataloader.batch_size
    total = batch * gpus
    length = PASSES * len(survey.splits['train'].files) // total
    return dict(batch=batch, total=total, lr=base.optim_wrapper.optimizer.lr * total / own,
                iterations=iterations or min(max(length, LEAST), MOST))


def write(base_path: str, base: Config, survey: Survey, out: Path, numbers: dict[str, Any],
          weights: str | None) -> str:
    """Text of the config.

    Args:
        base_path: The base config's file, or ``PACKAGE::FILE``.
        base: The same, resolved.
        survey: The data set.
        out: Where the config will lie.
        numbers: What :func:`plan` gave.
        weights: Checkpoint to start from; None starts as the base does.
    """
    model = _with_classes(base.model.to_dict(), len(survey.classes))
    if weights and 'init_cfg' in base.model.get('backbone', {}):
        model = {**model, 'backbone': {**model.get('backbone', {}), 'init_cfg': None}}
    iterations = numbers['iterations']
    interval = max(1, iterations // 10)
    entries: dict[str, Any] = {
        'data_root': f'{survey.root.resolve()}/',
        'metainfo': dict(classes=tuple(survey.classes)),
        **({'load_from': weights} if weights else {}), 'model': model}
    if classes := _with_classes(base.get('data_preprocessor', {}), len(survey.classes)):
        entries['data_preprocessor'] = classes
    entries |= _data(base, survey, numbers['batch'])
    entries |= {
        'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=iterations,
                          val_interval=interval),
        'optim_wrapper': dict(optimizer=dict(lr=float(f'{numbers["lr"]:.6g}'))),
        'param_scheduler': [
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0,
                 end=min(500, max(1, iterations // 10))),
            dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=False, begin=0, end=iterations)],
        'auto_scale_lr': dict(base_batch_size=numbers['total']),
        'default_hooks': dict(
            logger=dict(interval=min(50, max(1, iterations // 20))),
            checkpoint=dict(by_epoch=False, interval=interval, max_keep_ckpts=2)),
        'log_processor': dict(by_epoch=False)}
    head = (f'"""{len(survey.classes)} classes of {survey.root.name}: '
            f'{len(survey.splits["train"].files)} pictures to train, '
            f'{len(survey.splits["val"].files)} to validate.\n\n'
            f'Written by tools/new_config.py; change what you like.\n"""\n')
    where = base_path if '::' in base_path else os.path.relpath(base_path, out.resolve().parent)
    entries |= {'test_dataloader': Name('val_dataloader'), 'test_evaluator': Name('val_evaluator')}
    return head + ''.join(code(*entry) for entry in {'_base_': where, **entries}.items())


def _data(base: Config, survey: Survey, batch: int) -> dict[str, Any]:
    """Data loaders and evaluator."""
    writer = {'mmdet': _coco, 'mmseg': _label_maps, 'mmpretrain': _class_folders}[
        base.default_scope]
    train, val = (writer(base, survey, part) for part in _PARTS)
    loaders = {
        'train_dataloader': dict(
            batch_size=batch, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
            dataset=train),
        'val_dataloader': dict(dataset=val)}
    if base.default_scope == 'mmdet':
        evaluator: Any = dict(ann_file=_absolute(survey, val['ann_file']))
    elif base.default_scope == 'mmpretrain':
        evaluator = dict(_delete_=True, type='Accuracy',
                         topk=(1, 5) if len(survey.classes) > 5 else (1, ))
    else:
        evaluator = dict(_delete_=True, type='IoUMetric', iou_metrics=['mIoU'])
    return {**loaders, 'val_evaluator': evaluator}


def _coco(base: Config, survey: Survey, part: str) -> dict[str, Any]:
    loader = base[f'{part}_dataloader']
    if loader.dataset.type.rpartition('.')[2] != 'CocoDataset':
        raise UserError('base', f'it trains on {loader.dataset.type}', 'a config for COCO')
    return dict(data_root=Name('data_root'), metainfo=Name('metainfo'),
                **survey.splits[part].dataset)


def _label_maps(base: Config, survey: Survey, part: str) -> dict[str, Any]:
    steps = innermost_dataset(base[f'{part}_dataloader'].dataset).pipeline
    # Labels are counted from 0 here, while some sets have 0 for what does not count.
    pipeline = [dict(step, reduce_zero_label=False) if step.type == 'LoadAnnotations' else
                dict(step) for step in steps]
    return dict(_delete_=True, type='BaseSegDataset', data_root=Name('data_root'),
                metainfo=Name('metainfo'), reduce_zero_label=False,
                **survey.splits[part].dataset, pipeline=pipeline)


def _class_folders(base: Config, survey: Survey, part: str) -> dict[str, Any]:
    dataset = innermost_dataset(base[f'{part}_dataloader'].dataset)
    return dict(_delete_=True, type='CustomDataset', data_root=Name('data_root'),
                metainfo=Name('metainfo'), **survey.splits[part].dataset,
                pipeline=[dict(step) for step in dataset.pipeline])


def _absolute(survey: Survey, path: str) -> Any:
    return path if os.path.isabs(path) else Name(f'data_root + {path!r}')


def _with_classes(node: Any, number: int) -> dict[str, Any]:
    """What to change in a part of the model so that all its heads know a number of classes."""
    changes: dict[str, Any] = {}
    old = node.get('num_classes')
    if isinstance(old, int):
        changes['num_classes'] = number
    for key, value in node.items():
        if isinstance(value, dict) and (found := _with_classes(value, number)):
            changes[key] = found
        elif isinstance(value, list | tuple) and any(
                isinstance(item, dict) and _with_classes(item, number) for item in value):
            # A list can be replaced only as a whole.
            changes[key] = [_merge(item, _with_classes(item, number)) for item in value]
    return changes | _class_weights(node, old, number)


def _class_weights(node: dict[str, Any], old: Any, number: int) -> dict[str, Any]:
    """Weights of classes in the losses of a head begin equal; the last may be of the background."""
    changes = {}
    for key, loss in node.items():
        weights = loss.get('class_weight') if isinstance(loss, dict) else None
        if isinstance(old, int) and isinstance(weights, list | tuple):
            more = [weights[-1]] if len(weights) == old + 1 else []
            changes[key] = dict(class_weight=[1.0] * number + more)
    return changes


def _merge(node: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(node)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(node.get(key), dict)
        merged[key] = _merge(node[key], value) if both else value
    return merged


class Name(str):
    """An expression, written as it is."""


def code(name: str, value: Any) -> str:
    """A Python assignment, laid out in lines of at most 100 characters where it can be broken.

    Args:
        name: What is assigned to.
        value: Numbers, texts, lists, tuples, dictionaries and :class:`Name`.
    """
    return FormatCode(f'{name} = {_line(value)}\n', style_config=STYLE)[0]


def _line(value: Any) -> str:
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, dict) and all(str(key).isidentifier() for key in value):
        return f'dict({", ".join(f"{key}={_line(item)}" for key, item in value.items())})'
    if isinstance(value, dict):
        return f'{{{", ".join(f"{key!r}: {_line(item)}" for key, item in value.items())}}}'
    if isinstance(value, tuple):
        return f'({", ".join(map(_line, value))}{", " if len(value) == 1 else ""})'
    return f'[{", ".join(map(_line, value))}]' if isinstance(value, list) else repr(value)
