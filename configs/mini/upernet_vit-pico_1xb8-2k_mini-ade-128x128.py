"""UperNet, plain ViT-pico with patches of 8 pixels, 2,000 iterations on the mini ADE20K set.

Convolutions between its blocks as in the classifier beside it. Its finest map has a stride of 2,
where 64 channels in the head take four times as long.
Gate (``make learn``): mIoU >= 50.
"""
_base_ = './upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PlainViT', arch='pico', patch_size=8, window_size=8, image_size=128,
        pretrain_image_size=128, conv_blocks=(1, 3, 5, 7)),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=32),
    auxiliary_head=dict(in_channels=64, channels=32))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
