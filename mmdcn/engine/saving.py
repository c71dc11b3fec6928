"""Checkpoints of a run: written whole, pruned only afterwards, found again in a moved folder.

A checkpoint is written beside its place, synced and renamed, then ``last_checkpoint`` is, and only
then older ones are removed, so a kill or a full disk at any moment leaves a whole one. A run
continues from the newest that can be read.
"""
from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine import hooks
from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.registry import HOOKS

from mmdcn.errors import UserError
from mmdcn.writing import remove_parts, whole_file, write_text

if TYPE_CHECKING:
    from mmengine.runner import Runner

_NOTE = 'last_checkpoint'
# iter_1000.pth, epoch_12.pth; neither best_acc_iter_1000.pth nor a published
# iter_1000-1a2b3c4d.pth, which lack the optimizer.
_NUMBERED = re.compile(r'(?!best_|.*-[0-9a-f]{8}\.pth).*?(\d+)\.pth')


@register_backend('local', force=True, prefixes='')
class WholeFileBackend(LocalBackend):
    """mmengine's local files (checkpoints, results), each whole or not there."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; the folder is made where absent."""
        with whole_file(filepath) as part:
            part.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text; the folder is made where absent."""
        with whole_file(filepath) as part:
            part.write_text(obj, encoding=encoding)


class _RemovesLater:
    """A file backend whose removals wait until what replaces the file is written.

    What a checkpoint says of older ones decides the names, so only numbered or best checkpoints
    that lie directly in the folder are removed, never a folder or a link.
    """

    def __init__(self, backend: Any, folder: str) -> None:
        self._backend = backend
        self._folder = Path(folder)
        self._waiting: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def isfile(self, path: str) -> bool:
        """Whether the path is a checkpoint of this folder, which may be removed."""
        path = Path(path)
        named = path.name.startswith('best_') or _NUMBERED.fullmatch(path.name)
        return bool(named) and path.parent == self._folder and self._backend.isfile(str(path))

    def isdir(self, path: str) -> bool:
        """False: no folder is ever removed."""
        return False

    def remove(self, path: str) -> None:
        """Remove the file when :meth:`settle` is called, unless another has its name by then."""
        self._waiting[str(path)] = os.stat(path).st_ino

    def settle(self) -> None:
        """Remove what waits."""
        for path, file in self._waiting.items():
            if os.path.isfile(path) and os.stat(path).st_ino == file:
                os.remove(path)
        self._waiting.clear()


@HOOKS.register_module(force=True)
class CheckpointHook(hooks.CheckpointHook):
    """mmengine's hook, which removes older checkpoints only after the new one is whole.

    Weights that are not finite are not saved: the run stops with the last good checkpoint kept.
    Arguments as mmengine's.
    """

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder; left-overs of a killed run are removed."""
        super().before_train(runner)
        self.file_backend = _RemovesLater(self.file_backend, self.out_dir)
        if is_main_process() and Path(self.out_dir).is_dir():
            remove_parts(Path(self.out_dir))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        check_weights(runner)
        keep, backend = self.max_keep_ckpts, self.file_backend
        name = self.filename_tmpl.format(step)
        if keep > 0:
            # Saved with those that are about to go: a resumed run removes them if this one cannot.
            steps = [old for old in self.keep_ckpt_ids if old != step] + [step]
            runner.message_hub.update_info('keep_ckpt_ids', steps)
            for old in steps[:-keep]:
                path = backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if backend.isfile(path):
                    backend.remove(path)
        self.last_ckpt = backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        if keep > 0:
            self.keep_ckpt_ids = deque(steps[-keep:], keep)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        if is_main_process():
            write_text(Path(runner.work_dir) / _NOTE, self.last_ckpt)
            backend.settle()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        unknown = set(self.save_best or ()) - {*metrics, 'auto'}
        if unknown:
            raise UserError('save_best', f'got {sorted(unknown)[0]!r}',
                            f'a metric of the evaluator: {", ".join(metrics)}',
                            'correct default_hooks.checkpoint.save_best of the config; the '
                            f'checkpoint is kept: {self.last_ckpt or "none"}')
        super()._save_best_checkpoint(runner, metrics)
        if is_main_process():
            self.file_backend.settle()


def check_weights(runner: Runner) -> None:
    """Raise UserError, on every process, if a weight of the model is NaN or infinite."""
    bad = [name for name, value in runner.model.named_parameters()
           if not torch.isfinite(value).all()]
    for rank, name in enumerate(all_gather_object(bad[0] if bad else None)):
        if name:
            raise UserError(
                'model', f'{name} is NaN or infinite after iteration {runner.iter + 1}'
                f'{f" in process {rank}" * bool(rank)}', 'finite weights',
                'they are not saved. Continue from the last good checkpoint '
                f'({last_checkpoint(runner.work_dir)}) with a lower learning rate or gradient '
                'clipping')


def find_checkpoints(work_dir: str) -> list[str]:
    """Checkpoints of a work folder from which a run may continue, the best choice first.

    That is the one the folder's note names, wherever the folder has been moved to, unless a later
    one was written after the note; then the older ones, newest first.
    """
    folder = Path(work_dir)
    numbers = {path: int(match[1]) for path in folder.glob('*.pth')
               if (match := _NUMBERED.fullmatch(path.name))}
    order = sorted(numbers, key=lambda path: (numbers[path], path.stat().st_mtime), reverse=True)
    note = folder / _NOTE
    text = note.read_text().strip() if note.is_file() else ''
    named = next((path for path in (folder / Path(text).name, Path(text))
                  if text and path.is_file()), None)
    if named is not None:
        written = note.stat().st_mtime
        least = numbers.get(named, -1)
        later = [path for path in order
                 if numbers[path] > least and path.stat().st_mtime > written]
        older = [path for path in order if numbers[path] < least]
        order = [*later, named, *older]
    return [str(path) for path in order]


def require_checkpoint(work_dir: str) -> None:
    """Raise UserError if a work folder holds no checkpoint to continue from."""
    if not find_checkpoints(work_dir):
        raise UserError('resume', f'{work_dir} holds no checkpoint to continue from',
                        remedy="drop `resume`, or name the file: `resume='PATH'`")


def last_checkpoint(work_dir: str) -> str:
    """The checkpoint from which a run would continue, or ``none``."""
    return next(iter(find_checkpoints(work_dir)), 'none')
