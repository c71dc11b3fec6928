"""Checkpoints: safe reading and writing, and a report of how well one fits a model."""
from mmcls_custom.checkpoints.loading import (
    CheckpointError,
    UnsafeCheckpointError,
    read_checkpoint,
)
from mmcls_custom.checkpoints.matching import MatchReport, load_state_dict
from mmcls_custom.checkpoints.openmmlab import CheckedPretrainedInit
from mmcls_custom.checkpoints.policy import LoadingPolicy, current_policy, loading_policy
from mmcls_custom.checkpoints.training_state import pack_training_state
from mmcls_custom.checkpoints.writing import save_checkpoint

__all__ = [
    'CheckedPretrainedInit',
    'CheckpointError',
    'LoadingPolicy',
    'MatchReport',
    'UnsafeCheckpointError',
    'current_policy',
    'load_state_dict',
    'loading_policy',
    'pack_training_state',
    'read_checkpoint',
    'save_checkpoint',
]
