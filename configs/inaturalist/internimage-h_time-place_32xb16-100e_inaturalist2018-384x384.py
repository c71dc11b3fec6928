"""Classifier of 8,142 species, InternImage-H with time and place, fine-tuned for 100 epochs.

Starts from internimage_h_jointto22k_384.pth; all layers for the classes and for time and place
begin anew. Published: top-1 92.6 (InternImage repository, table of iNaturalist 2018).
"""
_base_ = [
    '../_base_/models/internimage_cls_clip.py', '../_base_/datasets/inaturalist2018_384.py',
    '../_base_/schedules/cls_20e.py', '../_base_/runtime/cls.py'
]
model = dict(
    backbone=dict(drop_path_rate=0.6),
    head=dict(type='TimePlaceHead', num_classes=8142))
train_dataloader = dict(batch_size=16)
# Neither a warm-up nor an average of the weights.
train_cfg = dict(max_epochs=100)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=0, end=100,
         convert_to_iter_based=True),
]
custom_hooks = []
custom_imports = dict(
    imports=['mmcls_custom', 'mmcls_custom.datasets.inaturalist', 'mmcls_custom.models'])
