"""BEVFormer v2 t2, ResNet-50, 24 epochs: the current frame and the one before.

Published on nuScenes val: NDS 51.82, mAP 41.99; mATE 0.6689, mASE 0.2814,
mAOE 0.3915, mAVE 0.3834, mAAE 0.1928 (BEVFormer repository, header of the config).
"""
_base_ = [
    '../_base_/models/bevformer-v2_r50.py', '../_base_/datasets/nuscenes_bevformer-v2.py',
    '../_base_/schedules/bevformer-v2_24e.py', '../_base_/runtime/det3d.py'
]
frames = (-1, 0)
model = dict(frames=frames)
train_dataloader = dict(dataset=dict(frames=frames))
val_dataloader = dict(dataset=dict(frames=frames))
test_dataloader = val_dataloader
