"""Cityscapes, crops of 512x1024, whole pictures of 2048x1024 to test."""
_base_ = 'mmseg::_base_/datasets/cityscapes.py'
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(2 * side, side), keep_ratio=True)
         for side in (512, 768, 1024, 1280, 1536, 1792)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')],
    ]),
]
