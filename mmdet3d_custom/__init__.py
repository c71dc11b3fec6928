"""3-D detection plug-in.

Importing it makes mmdet3d importable beside the project's stack and registers the shared backbones
and necks, the engine, and the plug-in's own parts.
"""
import mmcls_custom.backbones
import mmcls_custom.necks  # noqa: F401
from mmdet3d_custom._compat import import_mmdet3d

import_mmdet3d()

import mmdet3d_custom.models  # noqa: E402, F401
