"""BEVFormer v2 t1, ResNet-50, 24 epochs: the current frame alone.

Eleven groups of queries, pictures of several sizes, BEV augmentation.
Published on nuScenes val: NDS 45.29, mAP 38.05; mATE 0.7198, mASE 0.2805,
mAOE 0.4131, mAVE 0.7652, mAAE 0.1951 (BEVFormer repository, header of the config).
"""
_base_ = [
    '../_base_/models/bevformer-v2_r50.py', '../_base_/datasets/nuscenes_bevformer-v2.py',
    '../_base_/schedules/bevformer-v2_24e.py', '../_base_/runtime/det3d.py'
]
