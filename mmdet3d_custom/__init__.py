"""3-D detection plug-in.

Importing it makes mmdet3d importable beside the project's stack and registers the shared backbones
and necks, the engine, and what BEVFormer v2 needs.
"""
import mmcls_custom.backbones
import mmcls_custom.necks  # noqa: F401
from mmdet3d_custom._compat import import_mmdet3d

import_mmdet3d()

# After mmdet3d can be imported.
from mmdet3d_custom import datasets, evaluation, models, visualization  # noqa: E402

__all__ = ['datasets', 'evaluation', 'models', 'visualization']
