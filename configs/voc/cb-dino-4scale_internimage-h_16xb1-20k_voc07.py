"""DINO 4-scale on the composite InternImage-H, 20,000 iterations on VOC 2007 and 2012.

Published: AP 94.0 on the test pictures of VOC 2007 (InternImage repository, VOC table).

Starts from the published detector after Objects365 that has the 20 classes of VOC, converted as the
one of COCO is. 16 GPUs are an assumption: no number is published.
"""
_base_ = [
    '../_base_/models/cb-dino-4scale_internimage.py', '../_base_/datasets/voc0712.py',
    '../_base_/schedules/cb-dino_20k.py', '../_base_/runtime/det_iters.py'
]
load_from = 'checkpoints/cb-dino-4scale_internimage-h_objects365_20classes.pth'
model = dict(bbox_head=dict(num_classes=20))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
