"""Classification plug-in, and the home of what all tasks share: backbones, engine, checkpoints.

Importing it registers the shared backbones and engine parts.
"""
import mmcls_custom.backbones
import mmcls_custom.engine  # noqa: F401
