"""Checkpoints: safe reading and a report of how well one fits a model."""
from mmcls_custom.checkpoints.loading import (
    CheckpointError,
    MatchReport,
    load_state_dict,
    read_checkpoint,
)
from mmcls_custom.checkpoints.writing import save_checkpoint

__all__ = [
    'CheckpointError',
    'MatchReport',
    'load_state_dict',
    'read_checkpoint',
    'save_checkpoint',
]
