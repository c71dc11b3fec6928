"""UperNet, plain ViT-pico with patches of 8 pixels, 2,000 iterations on the mini ADE20K set.

Convolutions between its blocks as in the classifier beside it. Its finest map, of stride 2, is left
out, as the head would take most of the time on it.
Gate (``make learn``): mIoU >= 50.
"""
_base_ = './upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py'
model = dict(
    backbone=dict(
        _delete_=True, type='PlainViT', arch='pico', patch_size=8, window_size=8, image_size=128,
        pretrain_image_size=128, conv_blocks=(1, 3, 5, 7)),
    decode_head=dict(in_channels=[64, 64, 64], in_index=[1, 2, 3]),
    auxiliary_head=dict(in_channels=64))
