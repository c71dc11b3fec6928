"""BEVFormer v2 t2, FlashInternImage-pico: as t1, with the frame half a second before."""
_base_ = './bevformer-v2-t1_flash-internimage-pico_1xb2-1k_mini-nuscenes.py'
frames = (-1, 0)
model = dict(frames=frames)
train_dataloader = dict(dataset=dict(frames=frames))
val_dataloader = dict(dataset=dict(frames=frames))
test_dataloader = val_dataloader
