"""BEVFormer v2 with FlashInternImage-B (DCNv4)."""
_base_ = './bevformer-v2_internimage.py'
model = dict(
    img_backbone=dict(
        _delete_=True, type='FlashInternImage', arch='base', drop_path_rate=0.4, with_cp=True,
        out_indices=(1, 2, 3)))
