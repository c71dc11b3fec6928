"""mmseg's runtime with TensorBoard and JSON logs; registers the segmentation plug-in."""
_base_ = 'mmseg::_base_/default_runtime.py'
custom_imports = dict(imports=['mmseg_custom'], allow_failed_imports=False)
visualizer = dict(
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
