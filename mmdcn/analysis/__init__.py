"""What a model costs and does: operation counts, features, where deformable layers sample."""
from mmdcn.analysis.features import get_features, record_features

__all__ = ['get_features', 'record_features']
