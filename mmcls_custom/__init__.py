"""Classification plug-in, and the home of the backbones and necks that every task shares.

Importing it registers them, beside what ``mmdcn`` registers. Backbones on mmpretrain's classes cost
seconds to import, so configs name their modules in ``custom_imports``.
"""
import mmdcn.apis.drawing
import mmdcn.engine  # noqa: F401
from mmcls_custom import backbones, necks

__all__ = ['backbones', 'necks']
