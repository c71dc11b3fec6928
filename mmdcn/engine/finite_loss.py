"""A loss that is NaN or infinite ends the run, or its batch is skipped."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement

from mmdcn.engine.saving import last_checkpoint
from mmdcn.errors import UserError

if TYPE_CHECKING:
    from mmengine.runner import Runner

_SHOWN = 8


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training at the first loss that is NaN or infinite; the runner has it by default.

    It names the iteration, the loss that went first and the files of the batch, on every process,
    before anything of that iteration is saved. The config can choose otherwise:
    ``default_hooks=dict(finite_loss=dict(type='FiniteLossHook', action='skip'))``, or
    ``finite_loss=None`` to look at nothing.

    Args:
        action: ``'stop'``, or ``'skip'`` to go on without an update from such a batch, naming it
            in the log. Skipping looks at the loss before the update, which costs a GPU the time
            of a synchronisation.
        max_in_a_row: With ``'skip'``, batches skipped one after another before the run stops
            all the same.
    """

    priority = 'HIGHEST'

    def __init__(self, action: str = 'stop', max_in_a_row: int = 10) -> None:
        if action not in ('stop', 'skip'):
            raise UserError('action', f'got {action!r}', "'stop' or 'skip'")
        if max_in_a_row < 1:
            raise UserError('max_in_a_row', f'got {max_in_a_row}', 'at least 1')
        self.action = action
        self.max_in_a_row = max_in_a_row
        self._in_a_row = 0

    def before_train(self, runner: Runner) -> None:
        """With ``'skip'``, let the optimizer see finite losses only."""
        if self.action == 'stop':
            return
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            raise UserError('action', "got 'skip'", f"'stop' for a {type(wrapper).__name__}")
        update = wrapper.update_params

        def update_if_finite(loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            if not _any_process(not torch.isfinite(loss).all()):
                update(loss, *args, **kwargs)

        wrapper.update_params = update_if_finite

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Mapping[str, Any] | None = None) -> None:
        """Look at the losses of an iteration.

        Raises:
            UserError: One is not finite and the run is to stop.
        """
        bad = first_not_finite(outputs or {})
        if not _any_process(bad is not None):
            self._in_a_row = 0
            return
        told = all_gather_object(bad and (bad, list(batch_files(data_batch))))
        rank, (name, files) = next((i, told[i]) for i in range(len(told)) if told[i])
        found = (f'{name} is NaN or infinite in iteration {runner.iter + 1}'
                 f'{f" of process {rank}" * bool(rank)}')
        details = '\n'.join(f'  {file}' for file in files[:_SHOWN])
        self._in_a_row += 1
        if self.action == 'skip' and self._in_a_row < self.max_in_a_row:
            print_log(f'batch skipped: {found}\n{details}', logger='current',
                      level=logging.WARNING)
            return
        raise UserError(
            'loss', found, 'finite losses',
            'look at the files of the batch, lower the learning rate or clip gradients, and '
            f'continue from the last good checkpoint ({last_checkpoint(runner.work_dir)}); to skip '
            "such batches: `cfg_options=['default_hooks.finite_loss.action=skip']`",
            details and f'files of the batch:\n{details}')


def first_not_finite(losses: Mapping[str, Any]) -> str | None:
    """Name of the first loss that is NaN or infinite; their sum ``loss`` only if no other is."""
    def finite(name: str) -> bool:
        return bool(torch.isfinite(torch.as_tensor(losses[name])).all())

    if 'loss' in losses and finite('loss'):  # one look, as each waits for a GPU
        return None
    names = sorted(losses, key=lambda name: name == 'loss')
    return next((name for name in names if 'loss' in name and not finite(name)), None)


def _any_process(here: Any) -> bool:
    """Whether it holds in any process."""
    flag = torch.tensor([int(here)])
    all_reduce(flag, 'max')
    return bool(flag)


def batch_files(batch: Any) -> Iterator[str]:
    """Paths of the images of a batch, wherever its data samples are."""
    if isinstance(batch, BaseDataElement):
        path = batch.get('img_path')
        yield from [path] if isinstance(path, str) else path or ()
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from batch_files(part)
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from batch_files(part)
