"""DINO, four feature levels, with FlashInternImage-T (DCNv4)."""
_base_ = './dino-4scale_internimage.py'
model = dict(
    backbone=dict(_delete_=True, type='FlashInternImage', arch='tiny', drop_path_rate=0.2,
                  out_indices=(1, 2, 3)))
