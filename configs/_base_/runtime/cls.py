"""mmpretrain's runtime with TensorBoard and JSON logs; registers the classification plug-in."""
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(
    imports=['mmcls_custom', 'mmcls_custom.backbones.convnext',
             'mmcls_custom.backbones.vision_transformer', 'mmcls_custom.datasets'],
    allow_failed_imports=False)
visualizer = dict(
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
