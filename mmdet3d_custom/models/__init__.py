"""Models of 3-D detection."""
from mmdet3d_custom.models.bev_decoder import BEVFormerDecoder
from mmdet3d_custom.models.bev_encoder import BEVFormerEncoder
from mmdet3d_custom.models.bev_head import BEVFormerHead
from mmdet3d_custom.models.bev_transformer import PerceptionTransformerV2
from mmdet3d_custom.models.bevformer_v2 import BEVFormerV2
from mmdet3d_custom.models.hybrid_queries import HybridQueries
from mmdet3d_custom.models.perspective_head import PerspectiveHead

__all__ = ['BEVFormerDecoder', 'BEVFormerEncoder', 'BEVFormerHead', 'BEVFormerV2',
           'HybridQueries', 'PerceptionTransformerV2', 'PerspectiveHead']
