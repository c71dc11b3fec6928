"""UperNet with FlashInternImage-T (DCNv4), 150 classes."""
_base_ = 'mmseg::_base_/models/upernet_r50.py'
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(_delete_=True, type='FlashInternImage', arch='tiny', drop_path_rate=0.2),
    decode_head=dict(in_channels=[64, 128, 256, 512], num_classes=150),
    auxiliary_head=dict(in_channels=256, num_classes=150))
