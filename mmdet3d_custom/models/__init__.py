"""Parts of 3-D detectors beyond mmdet3d's."""
from mmdet3d_custom.models.hybrid_queries import HybridQueries
from mmdet3d_custom.models.perspective_head import PerspectiveHead

__all__ = ['HybridQueries', 'PerspectiveHead']
