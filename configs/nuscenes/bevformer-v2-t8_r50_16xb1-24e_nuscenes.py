"""BEVFormer v2 t8, ResNet-50, 24 epochs: the current frame and the seven before.

Published on nuScenes val: NDS 55.28, mAP 46.00; mATE 0.6185, mASE 0.2815,
mAOE 0.3660, mAVE 0.3157, mAAE 0.1902 (BEVFormer repository, header of the config).
"""
_base_ = [
    '../_base_/models/bevformer-v2_r50.py', '../_base_/datasets/nuscenes_bevformer-v2.py',
    '../_base_/schedules/bevformer-v2_24e.py', '../_base_/runtime/det3d.py'
]
frames = (-7, -6, -5, -4, -3, -2, -1, 0)
model = dict(
    frames=frames, pts_bbox_head=dict(transformer=dict(fusion=dict(inter_channels=512))))
train_dataloader = dict(dataset=dict(frames=frames))
val_dataloader = dict(dataset=dict(frames=frames))
test_dataloader = val_dataloader
