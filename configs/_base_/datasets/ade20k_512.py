"""ADE20K, crops of 512x512, tested at a short side of 512.

mmseg's set; its scales of test-time augmentation are parts of 2048x512 here, not of the picture.
"""
_base_ = 'mmseg::_base_/datasets/ade20k.py'
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(4 * side, side), keep_ratio=True)
         for side in (256, 384, 512, 640, 768, 896)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]
train_dataloader = dict(batch_size=2)
