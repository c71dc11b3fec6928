"""DINO 4-scale, InternImage-G, 20,000 iterations: as InternImage-H, the number of GPUs included.

Published: box AP 64.2 (InternImage repository, detection table).
"""
_base_ = './dino-4scale_internimage-h_16xb1-20k_coco.py'
model = dict(backbone=dict(arch='giant'), neck=dict(in_channels=[1024, 2048, 4096]))
