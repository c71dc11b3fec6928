"""UperNet, FlashInternImage-pico, 2,000 iterations on the mini ADE20K set.

Gate (``make learn``): mIoU >= 0.50. Background covers most pixels, so it weighs less in the loss.
"""
_base_ = [
    '../_base_/models/upernet_flash-internimage.py', '../_base_/datasets/mini_ade20k.py',
    '../_base_/schedules/mini_2k.py', '../_base_/runtime/mini_seg.py'
]
norm_cfg = dict(type='BN')
class_weight = [0.2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='pico', drop_path_rate=0.0),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64, num_classes=8, norm_cfg=norm_cfg,
                     loss_decode=dict(class_weight=class_weight)),
    auxiliary_head=dict(in_channels=128, channels=64, num_classes=8, norm_cfg=norm_cfg,
                        loss_decode=dict(class_weight=class_weight)))
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)
