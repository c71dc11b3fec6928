"""DINO 4-scale on the composite InternImage-H, 100,000 iterations on OpenImages V6.

Published: mAP 74.1 (InternImage repository, OpenImages table).

Starts from the published detector after Objects365, converted as the one of COCO is; its 80 classes
are those of COCO, so that the layers of classes start anew. 16 GPUs are an assumption: no number is
published.
"""
_base_ = [
    '../_base_/models/cb-dino-4scale_internimage.py', '../_base_/datasets/openimages.py',
    '../_base_/schedules/cb-dino_20k.py', '../_base_/runtime/det_iters.py'
]
load_from = 'checkpoints/cb-dino-4scale_internimage-h_objects365_80classes.pth'
model = dict(bbox_head=dict(num_classes=601))
train_cfg = dict(max_iters=100000)
