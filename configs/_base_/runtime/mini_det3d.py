"""3-D detection runtime of the mini systems: counts iterations, keeps the last checkpoint."""
_base_ = './det3d.py'
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=1000, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
