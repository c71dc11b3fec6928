"""UperNet, FlashInternImage-T, 160k iterations.

Published: mIoU 49.3 single scale, 50.3 multi-scale (DCNv4 repository, segmentation table).
"""
_base_ = [
    '../_base_/models/upernet_flash-internimage.py', 'mmseg::_base_/datasets/ade20k.py',
    '../_base_/schedules/seg_160k.py', '../_base_/runtime/seg.py'
]
train_dataloader = dict(batch_size=2)
