"""What all tasks share for running: the runner, its checks, and optimizers."""
from mmcls_custom.engine import optimizers, packages
from mmcls_custom.engine.amp import CpuAmpOptimWrapper
from mmcls_custom.engine.drawing import DrawPredictionsHook
from mmcls_custom.engine.errors import UserError
from mmcls_custom.engine.features import get_features, record_features
from mmcls_custom.engine.runner import CheckedRunner

__all__ = ['CheckedRunner', 'CpuAmpOptimWrapper', 'DrawPredictionsHook', 'UserError',
           'get_features', 'optimizers', 'packages', 'record_features']
