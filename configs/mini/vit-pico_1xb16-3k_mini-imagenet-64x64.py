"""Classifier, plain ViT-pico with patches of 8 pixels and convolutions between blocks.

Convolutions as in ViTDet; without them it takes far longer to tell unseen pictures apart
(docs/benchmarks.md).
Gate (``make learn``): top-1 >= 85 %.
"""
_base_ = [
    '../_base_/models/vit_dcnv4_cls.py', '../_base_/datasets/mini_imagenet.py',
    '../_base_/schedules/mini_3k.py', '../_base_/runtime/mini_cls.py'
]
model = dict(
    backbone=dict(_delete_=True, type='PlainViT', arch='pico', patch_size=8, window_size=8,
                  image_size=64, pretrain_image_size=64, conv_blocks=(1, 3, 5, 7),
                  out_type='last'),
    head=dict(in_channels=64, num_classes=8, topk=(1, 5)),
    train_cfg=dict(_delete_=True))
train_dataloader = dict(batch_size=16)
auto_scale_lr = dict(base_batch_size=16)
