"""BEVFormer v2 t1-base, ResNet-50, 48 epochs: the current frame alone.

One group of queries, pictures of one size, no BEV augmentation.
Published on nuScenes val: NDS 43.94, mAP 35.94; mATE 0.7327, mASE 0.2814,
mAOE 0.4074, mAVE 0.7831, mAAE 0.1983 (BEVFormer repository, header of the config).
"""
_base_ = [
    '../_base_/models/bevformer-v2_r50.py', '../_base_/datasets/nuscenes_bevformer-v2-base.py',
    '../_base_/schedules/bevformer-v2_48e.py', '../_base_/runtime/det3d.py'
]
model = dict(pts_bbox_head=dict(num_groups=1))
