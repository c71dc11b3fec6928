"""The runner of all tasks: mmengine's, with checked data, safe checkpoints and clean failures."""
from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATASETS,
    MODELS,
    OPTIMIZERS,
    RUNNERS,
    TRANSFORMS,
    DefaultScope,
)
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from mmdcn.checkpoints import (
    CheckpointError,
    DamagedCheckpointError,
    load_state_dict,
    pack_training_state,
    read_checkpoint,
)
from mmdcn.data.checks import build_dataset, check_model, check_together
from mmdcn.engine.resuming import REMEDY, resumable, warn_of_other_classes
from mmdcn.engine.saving import find_checkpoints, last_checkpoint
from mmdcn.errors import UserError
from mmdcn.layers import replace_deformable_attention

# Notes of dependencies about their own insides; nobody who reads the log can act on them.
_HARMLESS = ('"FileClient" will be deprecated', '"HardDiskBackend" is the alias',
             'The prefix is not set in metric class')


def _is_of_use(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_HARMLESS)


@RUNNERS.register_module()
class CheckedRunner(Runner):
    """mmengine's runner, which never unpickles unknown objects and trains on CPUs, too.

    A checkpoint must fill at least 99 % of the model's tensors, unless the loading policy allows
    less. The config is written into the work folder when the run really begins, not before.
    """

    _stamps: ClassVar[list[str]] = []
    started = False
    last_metrics: dict[str, float] | None = None

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a hook point; note the beginning of the run and its last metrics.

        What is saved afterwards loads with ``torch.load(weights_only=True)`` alone.
        """
        if fn_name in ('before_train', 'before_test') and not self.started:
            self.started = True
            super().dump_config()
        if fn_name == 'after_val_epoch':
            self.last_metrics = dict(kwargs['metrics'])
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':
            pack_training_state(kwargs['checkpoint'])

    def dump_config(self) -> None:
        """Do nothing yet: a run that fails while it is set up leaves the folder as it was."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; while the runner is set up the screen shows warnings only."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            handler.addFilter(_is_of_use)
        self._screen = [handler for handler in logger.handlers
                        if type(handler) is logging.StreamHandler]
        self._screen_levels = [handler.level for handler in self._screen]
        for handler in self._screen:
            handler.setLevel(max(handler.level, logging.WARNING))
        return logger

    @classmethod
    def from_cfg(cls, cfg: Config) -> CheckedRunner:
        """Build the runner of a config; without a data loader for validation there is none."""
        import_task_modules(cfg.get('default_scope', 'mmengine'))
        for mode in ('val', 'test'):
            if cfg.get(f'{mode}_dataloader') is None:
                cfg[f'{mode}_cfg'] = cfg[f'{mode}_evaluator'] = None
        runner = super().from_cfg(cfg)
        for handler, level in zip(runner._screen, runner._screen_levels, strict=True):
            handler.setLevel(level)
        return runner

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up the environment; the time stamp is unique among the runners of this process.

        Loggers and visualizers are found by a name that holds the time stamp in seconds, so two
        runs within one second would write into each other's files.
        """
        super().setup_env(env_cfg)
        taken = sum(stamp.startswith(self._timestamp) for stamp in self._stamps)
        if taken:
            self._timestamp += f'_{taken}'
        self._stamps.append(self._timestamp)

    def prepare_data(self, loaders: list[str], skip_bad: bool, trust_data: bool = False) -> int:
        """Build and check the data sets of some data loaders before the run begins.

        Args:
            loaders: Names such as ``train_dataloader``; those the config lacks are skipped.
            skip_bad: Carry on without samples whose files are missing or damaged.
            trust_data: Do not look at the files.

        Returns:
            Number of skipped samples.

        Raises:
            UserError: A data set cannot be built or does not pass.
        """
        skipped = 0
        for name in loaders:
            loader = getattr(self, f'_{name}')
            if loader is None:
                continue
            dataset = build_dataset(loader['dataset'], f'{name}.dataset')
            check_model(self.model, dataset, f'{name}.dataset')
            if not trust_data:
                dropped = check_together(dataset, f'{name}.dataset', skip_bad,
                                         self.logger.warning)
                if dropped and name != 'train_dataloader':
                    self.logger.warning('Metrics that read the annotation file themselves (COCO) '
                                        'count the skipped images as images without predictions.')
                skipped += dropped
            # A function is copied by reference, so the data set is neither copied nor built again.
            loader['dataset'] = {'type': lambda dataset=dataset: dataset}
        return skipped

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register mmengine's hooks and the one that stops at a loss which is not finite."""
        hooks = {'finite_loss': {'type': 'FiniteLossHook'}, **(hooks or {})}
        if hooks['finite_loss'] is None:
            del hooks['finite_loss']
        super().register_default_hooks(hooks)

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """Build a data loader; what only worker processes have is dropped where there are none."""
        if isinstance(dataloader, dict) and dataloader.get('num_workers') == 0:
            dataloader = {key: value for key, value in dataloader.items()
                          if key not in ('persistent_workers', 'prefetch_factor', 'timeout')}
        return Runner.build_dataloader(dataloader, *args, **kwargs)

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """Build the optimizer wrapper, naming an unknown optimizer."""
        name = optim_wrapper.get('optimizer', {}).get('type') \
            if isinstance(optim_wrapper, dict) else None
        if isinstance(name, str) and OPTIMIZERS.get(name) is None:
            raise KeyError(f'{name} is not in the mmengine::optimizer registry')
        return super().build_optim_wrapper(optim_wrapper)

    def kept_checkpoint(self) -> str:
        """Path of the best checkpoint of this run, else of the last one, else ``none``."""
        return self.message_hub.runtime_info.get('best_ckpt') or last_checkpoint(self.work_dir)

    def build_model(self, model: nn.Module | dict[str, Any]) -> nn.Module:
        """Build the model; its deformable attention runs on ``ops_dcn``."""
        model = super().build_model(model)
        replace_deformable_attention(model)
        return model

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Wrap the model for distributed training; on CPUs without device ids."""
        if not self.distributed or torch.cuda.is_available() or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        options = dict(model_wrapper_cfg or {'broadcast_buffers': False})
        options.pop('type', None)
        options.setdefault('find_unused_parameters', self.cfg.get('find_unused_parameters', False))
        return MMDistributedDataParallel(module=model, **options)

    def load_or_resume(self) -> None:
        """Load weights, or continue from a file or the newest whole checkpoint of the work folder.

        As with mmengine, a config with ``resume=True`` starts anew where there is no checkpoint.

        Raises:
            CheckpointError: None can be read, or the one that can does not fit.
        """
        if self._has_loaded or not self._resume or self._load_from is not None:
            super().load_or_resume()
            return
        outcome: list[Any] = [find_checkpoints(self.work_dir) if is_main_process() else None]
        broadcast_object_list(outcome)
        first_error = None
        for path in outcome[0]:
            try:
                self.resume(path)
            except DamagedCheckpointError as error:
                first_error = first_error or error
                self.logger.warning(f'passed over: {error}')
            else:
                self.logger.info(f'continued from {path}')
                return
        if first_error is not None:
            raise first_error
        self.logger.warning(f'{self.work_dir} holds no checkpoint to continue from: started anew')

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Continue from a checkpoint of this runner; arguments as mmengine's.

        Raises:
            CheckpointError: It cannot be read safely, belongs to another model, or its training
                state (optimizer, schedules) to another config.
        """
        self._resume = True  # whoever calls this; load_checkpoint and hooks ask for it
        try:
            super().resume(filename, *args, **kwargs)
        except UserError:
            raise
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(
                'resume', f'{filename} does not continue this config ({type(error).__name__}: '
                f'{error})', remedy=REMEDY) from error

    def load_checkpoint(self, filename: str, map_location: str | Callable = 'cpu',
                        strict: bool = False, revise_keys: list | None = None) -> dict[str, Any]:
        """Load a local checkpoint into the model.

        Where training starts from it, layers for another number of classes begin anew
        (``load_state_dict``), and averages of the weights from what was loaded.

        Args:
            filename: Checkpoint file.
            map_location: Device its tensors are put on.
            strict: Demand every tensor instead of the share of the loading policy.
            revise_keys: Not used; ``mmdcn.checkpoints`` knows the prefixes.

        Raises:
            CheckpointError: It cannot be read safely or belongs to another model.
        """
        checkpoint = read_checkpoint(filename, map_location)
        if self._resume:
            checkpoint = resumable(checkpoint, self, filename)
        starts = isinstance(self._train_loop, BaseLoop) and not self._resume
        if not starts:
            self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        target = model.module if isinstance(model, BaseTTAModel) else model
        load_state_dict(target, checkpoint['state_dict'], source=str(filename),
                        min_ratio=1.0 if strict else None, other_classes=starts)
        if starts:
            warn_of_other_classes(checkpoint, self, filename)
            self.call_hook('after_load_checkpoint', checkpoint={'state_dict': target.state_dict()})
        self._has_loaded = True
        return checkpoint


def import_task_modules(scope: str) -> None:
    """Import what a task registers, without the notes its packages print about optional parts."""
    with DefaultScope.overwrite_default_scope(scope), redirect_stdout(io.StringIO()):
        for root in (DATASETS, TRANSFORMS, MODELS):
            with root.switch_scope_and_registry(None) as registry:
                registry.import_from_location()


@contextmanager
def restore_on_error(work_dir: str, begun: Callable[[], bool]) -> Iterator[None]:
    """Take away what was newly put into a folder if the block fails before the run has begun."""
    folder = Path(work_dir)
    first_new = folder
    while not first_new.parent.exists():
        first_new = first_new.parent
    existed = folder.exists()
    before = set(os.listdir(folder)) if existed else set()
    try:
        yield
    except BaseException:
        if not begun() and is_main_process() and folder.exists():
            if Visualizer._instance_dict:  # its threads would write into what is taken away
                Visualizer.get_current_instance().close()
            if not existed:
                shutil.rmtree(first_new)
            for name in set(os.listdir(folder)) - before if existed else ():
                path = folder / name
                is_folder = path.is_dir() and not path.is_symlink()
                shutil.rmtree(path) if is_folder else path.unlink()
        raise
