"""DINO 4-scale on the composite InternImage-H, 80,000 iterations on LVIS v1, tested on val.

Published: box AP 62.3, with test-time augmentation 63.2 (InternImage repository, LVIS table).

Starts from the published detector after Objects365, converted as the one of COCO is; its 80 classes
are those of COCO, so that the layers of classes start anew. 16 GPUs are an assumption: no number is
published. The published file names a federated loss as well, which its code does not have.
"""
_base_ = [
    '../_base_/models/cb-dino-4scale_internimage.py', '../_base_/datasets/lvis_v1.py',
    '../_base_/schedules/cb-dino_20k.py', '../_base_/runtime/det_iters.py',
    '../_base_/runtime/dino_tta_2000.py'
]
load_from = 'checkpoints/cb-dino-4scale_internimage-h_objects365_80classes.pth'
model = dict(bbox_head=dict(num_classes=1203))
train_cfg = dict(max_iters=80000)
