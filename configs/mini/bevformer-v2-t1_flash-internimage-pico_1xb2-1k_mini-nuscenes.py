"""BEVFormer v2 t1, FlashInternImage-pico, 1,000 iterations on the mini nuScenes set.

Velocities weigh as much as all else, so that they are learnt in so short a training.
"""
_base_ = [
    '../_base_/models/bevformer-v2_flash-internimage.py', '../_base_/datasets/mini_nuscenes.py',
    '../_base_/schedules/mini_1k.py', '../_base_/runtime/mini_det3d.py'
]
width = 64
layers = dict(num_layers=2, num_heads=4, feedforward_channels=128, dropout=0.0)
model = dict(
    grid_mask=None,
    img_backbone=dict(arch='pico', drop_path_rate=0.0, with_cp=False),
    img_neck=dict(in_channels=[64, 128, 256], out_channels=width),
    pts_bbox_head=dict(
        num_query=60, num_groups=3, bev_h=40, bev_w=40, embed_dims=width, code_weights=[1.0] * 10,
        transformer=dict(encoder=dict(num_points=4, **layers), decoder=layers)),
    fcos3d_bbox_head=dict(in_channels=width, num_convs=2))
optim_wrapper = dict(clip_grad=dict(max_norm=35))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=2)
