"""ADE20K, crops of 640x640, tested at a short side of 640.

mmseg's set; its scales of test-time augmentation are parts of 2560x640 here, not of the picture.
"""
_base_ = 'mmseg::_base_/datasets/ade20k_640x640.py'
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(4 * side, side), keep_ratio=True)
         for side in (320, 480, 640, 800, 960, 1120)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]
train_dataloader = dict(batch_size=2)
