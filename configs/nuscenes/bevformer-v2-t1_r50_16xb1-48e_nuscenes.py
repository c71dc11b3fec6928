"""BEVFormer v2 t1, ResNet-50, 48 epochs: the current frame alone.

Eleven groups of queries, pictures of several sizes, BEV augmentation.
Published on nuScenes val: NDS 46.46, mAP 39.53; mATE 0.6941, mASE 0.2765,
mAOE 0.4199, mAVE 0.7537, mAAE 0.1866 (BEVFormer repository, header of the config).
"""
_base_ = [
    '../_base_/models/bevformer-v2_r50.py', '../_base_/datasets/nuscenes_bevformer-v2.py',
    '../_base_/schedules/bevformer-v2_48e.py', '../_base_/runtime/det3d.py'
]
