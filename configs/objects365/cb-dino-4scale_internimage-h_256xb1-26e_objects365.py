"""DINO 4-scale on the composite InternImage-H, the pre-training on Objects365 v2.

Published: the weights after this step, cut to the 80 classes of COCO; no config and no metric. The
schedule (26 epochs, 256 pictures, a tenth of the rate from epoch 22) is a choice.

Both halves start from InternImage-H after joint pre-training and ImageNet-22K.
"""
_base_ = [
    '../_base_/models/cb-dino-4scale_internimage.py', '../_base_/datasets/objects365.py',
    '../_base_/schedules/cb-dino_20k.py', '../_base_/runtime/det.py'
]
weights = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/internimage_h_jointto22k_384.pth'
