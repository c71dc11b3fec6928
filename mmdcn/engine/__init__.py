"""What mmengine builds from a config: runner, hooks, mixed precision, optimizers, layer rules."""
from mmdcn.engine import optimizers, packages
from mmdcn.engine.amp import CpuAmpOptimWrapper
from mmdcn.engine.finite_loss import FiniteLossHook
from mmdcn.engine.runner import CheckedRunner
from mmdcn.engine.saving import CheckpointHook, WholeFileBackend

__all__ = ['CheckedRunner', 'CheckpointHook', 'CpuAmpOptimWrapper', 'FiniteLossHook',
           'WholeFileBackend', 'optimizers', 'packages']
