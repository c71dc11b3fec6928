"""Fine-tuning of ConvNeXt: 30 epochs of cosine from 5e-5, layer decay 0.8; batches of 512."""
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-8),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(rule='finetune', layer_decay_rate=0.8))
# The floor falls with the layers, so that the last epochs keep their decay.
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=True, begin=0, end=30,
         convert_to_iter_based=True)
]
auto_scale_lr = dict(enable=False, base_batch_size=512)
