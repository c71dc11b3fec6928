"""DINO 4-scale on the composite InternImage-H, the pre-training on Objects365 v2.

Published: the weights after this step, cut to the 80 classes of COCO; no config, no metric. The
schedule (26 epochs at batch 256, a tenth of the rate from epoch 22) is a choice, as is the
layer decay, which both halves follow.

Both halves start from InternImage-H after joint pre-training and ImageNet-22K.
"""
_base_ = [
    '../_base_/models/cb-dino-4scale_internimage.py', '../_base_/datasets/objects365.py',
    '../_base_/schedules/dino_1x.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_h_jointto22k_384.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=weights)),
    bbox_head=dict(num_classes=365))
train_cfg = dict(max_epochs=26)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=26, by_epoch=True, milestones=[22], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay_rate=0.94))
auto_scale_lr = dict(base_batch_size=256)
