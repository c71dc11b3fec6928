"""SegFormer's head on InternImage-L (DCNv3), the 19 classes of Cityscapes."""
_base_ = 'mmseg::_base_/models/segformer_mit-b0.py'
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(_delete_=True, type='InternImage', arch='large', drop_path_rate=0.4),
    decode_head=dict(in_channels=[160, 320, 640, 1280], num_classes=19))
