"""mmdet's runtime with TensorBoard and JSON logs; registers the detection plug-in."""
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmdet_custom', 'mmpretrain.models'], allow_failed_imports=False)
visualizer = dict(
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
