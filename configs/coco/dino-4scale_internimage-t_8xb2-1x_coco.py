"""DINO 4-scale, InternImage-T, 1x.

Published: box AP 53.9 (InternImage repository, detection table).

For comparison with the other DINO detectors set ``model.test_cfg.max_per_img=300``.
"""
_base_ = [
    '../_base_/models/dino-4scale_internimage.py', '../_base_/datasets/coco_ms-crop_dino.py',
    '../_base_/schedules/dino_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth'
model = dict(
    backbone=dict(with_cp=True, init_cfg=dict(type='Pretrained', checkpoint=weights)),
    test_cfg=dict(max_per_img=100))
