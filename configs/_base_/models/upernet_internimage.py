"""UperNet with InternImage-T (DCNv3), 150 classes."""
_base_ = './upernet_flash-internimage.py'
model = dict(
    backbone=dict(_delete_=True, type='InternImage', arch='tiny', drop_path_rate=0.2))
