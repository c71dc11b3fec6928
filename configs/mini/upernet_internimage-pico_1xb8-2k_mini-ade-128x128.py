"""UperNet, InternImage-pico (DCNv3), 2,000 iterations on the mini ADE20K set.

Gate (``make learn``): mIoU >= 50.
"""
_base_ = './upernet_flash-internimage-pico_1xb16-2k_mini-ade-128x128.py'
model = dict(backbone=dict(type='InternImage'))
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
