"""DINO 4-scale, InternImage-G, 20,000 iterations.

Published: box AP 64.2 (InternImage repository, detection table).

Start from a detector trained on Objects365 (``--cfg-options load_from=FILE``): the published
weights of this step are not named. 16 GPUs are an assumption: no number is published.
"""
_base_ = [
    '../_base_/models/dino-4scale_internimage.py', '../_base_/datasets/coco_2000.py',
    '../_base_/schedules/dino_20k.py', '../_base_/runtime/det_iters.py'
]
model = dict(
    backbone=dict(arch='giant', drop_path_rate=0.5, with_cp=True),
    neck=dict(in_channels=[1024, 2048, 4096]),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=1000)))
