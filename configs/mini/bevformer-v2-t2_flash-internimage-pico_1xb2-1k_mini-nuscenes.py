"""BEVFormer v2 t2, FlashInternImage-pico, 1,000 iterations on the mini nuScenes set."""
_base_ = './bevformer-v2-t1_flash-internimage-pico_1xb2-1k_mini-nuscenes.py'
frames = (-1, 0)
model = dict(frames=frames)
train_dataloader = dict(dataset=dict(frames=frames))
val_dataloader = dict(dataset=dict(frames=frames))
test_dataloader = val_dataloader
