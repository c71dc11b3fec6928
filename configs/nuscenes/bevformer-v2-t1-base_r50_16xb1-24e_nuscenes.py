"""BEVFormer v2 t1-base, ResNet-50, 24 epochs: the current frame alone.

One group of queries, pictures of one size, no BEV augmentation.
Published on nuScenes val: NDS 42.57, mAP 35.12; mATE 0.7534, mASE 0.2863,
mAOE 0.4665, mAVE 0.8070, mAAE 0.1861 (BEVFormer repository, header of the config).
"""
_base_ = [
    '../_base_/models/bevformer-v2_r50.py', '../_base_/datasets/nuscenes_bevformer-v2-base.py',
    '../_base_/schedules/bevformer-v2_24e.py', '../_base_/runtime/det3d.py'
]
model = dict(pts_bbox_head=dict(num_groups=1))
