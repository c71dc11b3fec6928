"""3-D detection plug-in; importing it makes mmdet3d importable with the project's stack."""
from mmdet3d_custom._compat import import_mmdet3d

import_mmdet3d()
