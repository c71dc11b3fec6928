"""Mask2Former with InternImage-H (DCNv3): 256 channels, 100 queries."""
_base_ = './mask2former_flash-internimage.py'
model = dict(
    backbone=dict(_delete_=True, type='InternImage', arch='huge', drop_path_rate=0.5),
    decode_head=dict(in_channels=[320, 640, 1280, 2560]))
