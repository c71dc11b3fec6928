"""BEVFormer v2, FlashInternImage-S, 24 epochs, frames 4 s before and 4 s after the current one.

The DCNv4 paper (arXiv:2401.06197) reports it on nuScenes test; its figures are not at hand.
Nothing else of it is public: all values are those of InternImage-B in the BEVFormer v2 paper. As
there, training starts from a COCO detector; which one, stochastic depth and the number of frames
are ours. Tested here on val.
"""
_base_ = [
    '../_base_/models/bevformer-v2_flash-internimage.py',
    '../_base_/datasets/nuscenes_bevformer-v2.py',
    '../_base_/schedules/bevformer-v2_24e_layer-decay.py', '../_base_/runtime/det3d.py'
]
weights = ('https://huggingface.co/OpenGVLab/DCNv4/resolve/main/'
           'mask_rcnn_flash_internimage_s_fpn_3x_coco.pth')
frames = (-8, 0, 8)
model = dict(
    frames=frames,
    img_backbone=dict(arch='small', drop_path_rate=0.4, init_cfg=dict(
        type='Pretrained', checkpoint=weights, prefix='backbone.')),
    img_neck=dict(in_channels=[160, 320, 640]))
train_dataloader = dict(dataset=dict(frames=frames))
val_dataloader = dict(dataset=dict(frames=frames))
test_dataloader = val_dataloader
