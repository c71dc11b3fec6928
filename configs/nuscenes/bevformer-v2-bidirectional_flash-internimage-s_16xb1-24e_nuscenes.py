"""BEVFormer v2, FlashInternImage-S, 24 epochs, frames 4 s before and 4 s after the current one.

The DCNv4 paper (arXiv:2401.06197) reports it on nuScenes test; its figures are not at hand.
Nothing else of it is public: all values are those of InternImage-B in the BEVFormer v2 paper. As
there, training starts from a COCO detector; which one, stochastic depth and the number of frames
are ours. Tested here on val.
"""
_base_ = './bevformer-v2-bidirectional_flash-internimage-b_16xb1-24e_nuscenes.py'
weights = ('https://huggingface.co/OpenGVLab/DCNv4/resolve/main/'
           'mask_rcnn_flash_internimage_s_fpn_3x_coco.pth')
model = dict(
    img_backbone=dict(arch='small', init_cfg=dict(checkpoint=weights)),
    img_neck=dict(in_channels=[160, 320, 640]))
