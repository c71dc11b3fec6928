"""BEVFormer v2, InternImage-XL, 24 epochs, frames 4 s before and 4 s after the current one.

Published on nuScenes test: NDS 63.4, mAP 55.6; mATE 0.456, mASE 0.248, mAOE 0.317, mAVE 0.293,
mAAE 0.123 (BEVFormer v2 paper, table 1), with hybrid object queries, which are off here
(``model.pts_bbox_head.hybrid_queries=dict(type='HybridQueries')``).
Batch, rate, layer decay and the interval of 4 s in both directions are published (table 7).
Ours are the number of frames (one before, one after), the COCO detector that training starts
from, and its stochastic depth. Tested here on val.
"""
_base_ = './bevformer-v2-bidirectional_internimage-b_16xb1-24e_nuscenes.py'
weights = ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
           'cascade_internimage_xl_fpn_3x_coco.pth')
model = dict(
    img_backbone=dict(arch='xlarge', drop_path_rate=0.6, init_cfg=dict(checkpoint=weights)),
    img_neck=dict(in_channels=[384, 768, 1536]))
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(layer_decay_rate=0.94))
auto_scale_lr = dict(base_batch_size=32)
