"""What mmengine builds from a config: the runner, mixed precision, optimizers, layer rules."""
from mmdcn.engine import optimizers, packages
from mmdcn.engine.amp import CpuAmpOptimWrapper
from mmdcn.engine.runner import CheckedRunner

__all__ = ['CheckedRunner', 'CpuAmpOptimWrapper', 'optimizers', 'packages']
