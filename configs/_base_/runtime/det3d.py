"""mmdet3d's runtime with TensorBoard and JSON logs; registers the 3-D plug-in."""
_base_ = 'mmdet3d::_base_/default_runtime.py'
custom_imports = dict(imports=['mmdet3d_custom'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=3))
visualizer = dict(
    type='MultiViewVisualizer', name='visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
