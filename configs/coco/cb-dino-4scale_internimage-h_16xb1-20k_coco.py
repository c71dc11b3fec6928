"""DINO 4-scale on the composite InternImage-H, 20,000 iterations after Objects365.

Published: box AP 64.5, with test-time augmentation 65.0 (InternImage repository, detection table).

Starts from the published detector after Objects365, converted beforehand; ``load_from`` says where
``tools/convert_checkpoint.py dino_4scale_cbinternimage_h_objects365_80classes.pth DST`` put it.
16 GPUs are an assumption: no number is published.
"""
_base_ = [
    '../_base_/models/cb-dino-4scale_internimage.py', '../_base_/datasets/coco_2000.py',
    '../_base_/schedules/cb-dino_20k.py', '../_base_/runtime/det_iters.py',
    '../_base_/runtime/dino_tta_2000.py'
]
load_from = 'checkpoints/cb-dino-4scale_internimage-h_objects365_80classes.pth'
