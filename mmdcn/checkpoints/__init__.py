"""Checkpoints: safe reading and writing, and a report of how well one fits a model."""
from mmdcn.checkpoints.dataset_meta import read_dataset_meta
from mmdcn.checkpoints.loading import (
    CheckpointError,
    DamagedCheckpointError,
    UnsafeCheckpointError,
    read_checkpoint,
)
from mmdcn.checkpoints.matching import MatchReport, load_state_dict
from mmdcn.checkpoints.openmmlab import CheckedPretrainedInit
from mmdcn.checkpoints.policy import LoadingPolicy, current_policy, loading_policy
from mmdcn.checkpoints.training_state import pack_training_state
from mmdcn.checkpoints.writing import save_checkpoint

__all__ = [
    'CheckedPretrainedInit',
    'CheckpointError',
    'DamagedCheckpointError',
    'LoadingPolicy',
    'MatchReport',
    'UnsafeCheckpointError',
    'current_policy',
    'load_state_dict',
    'loading_policy',
    'pack_training_state',
    'read_checkpoint',
    'read_dataset_meta',
    'save_checkpoint',
]
