"""What a nuScenes data set is checked for before a run, and heads against its classes."""
from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from mmdcn.data.checks import DataCheck, register_check
from mmdcn.data.files import check_files, read_headers
from mmdcn.errors import UserError
from mmdet3d_custom.datasets.info_file import CAMERAS
from mmdet3d_custom.datasets.nuscenes import TemporalNuScenesDataset

_SHOWN = 5
# Parts of a detector whose `num_classes` are not those of the data set.
_OTHER_CLASSES = {'img_backbone', 'backbone', 'data_preprocessor'}


class _Pictures:
    """The pictures of a data set, each as a sample of its own."""

    def __init__(self, dataset: Any) -> None:
        self.infos: list[dict[str, Any]] = []
        for index in range(len(dataset)):
            images = dataset.get_data_info(index)['images']
            self.infos += [images[camera] for camera in CAMERAS]

    def __len__(self) -> int:
        return len(self.infos)

    def get_data_info(self, index: int) -> dict[str, Any]:
        """What the check of files looks at."""
        return self.infos[index]


@register_check(TemporalNuScenesDataset)
class NuScenesCheck(DataCheck):
    """Pictures must be there, whole, and of the size for which the cameras are calibrated.

    Info files without a temporal part, of the old convention or of another version are refused as
    they are read (:func:`mmdet3d_custom.datasets.info_file.check_temporal`).
    """

    def check(self, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check`."""
        pictures = _Pictures(dataset)
        findings = check_files(pictures)
        if findings.bad_samples:
            raise UserError(where, f'{len(findings.bad_samples)} of {len(pictures)} pictures are '
                            f'broken ({len(findings.missing)} missing, {len(findings.damaged)} '
                            'damaged)', remedy='unpack all archives of nuScenes below its '
                            'data_root, or correct its data_prefix', details=findings.describe())
        headers = read_headers([info['img_path'] for info in pictures.infos
                                if '://' not in info['img_path']])
        wrong = []
        for info in pictures.infos:
            header, expected = headers.get(info['img_path']), (info['width'], info['height'])
            if header is not None and header.upright_size != expected:
                width, height = header.upright_size
                wrong.append(f'  {info["img_path"]}: {width}x{height} instead of '
                             f'{expected[0]}x{expected[1]}')
        if wrong:
            more = [f'  and {len(wrong) - _SHOWN} more'] if len(wrong) > _SHOWN else []
            raise UserError(where, f'{len(wrong)} of {len(pictures)} pictures have another size '
                            'than their cameras are calibrated for',
                            remedy='take the pictures as nuScenes has them; AugmentViews resizes '
                            'them with their matrices', details='\n'.join(wrong[:_SHOWN] + more))

    def check_model(self, model: nn.Module, dataset: Any, where: str) -> None:
        """As :meth:`mmdcn.data.checks.DataCheck.check_model`."""
        count = len(dataset.metainfo['classes'])
        model = model.module if is_model_wrapper(model) else model
        for name, part in model.named_modules():
            found = getattr(part, 'num_classes', None)
            if name and not _OTHER_CLASSES & set(name.split('.')) and isinstance(found, int) and \
                    found != count:
                raise UserError(f'model.{name}.num_classes', f'got {found}',
                                f'{count}, as many as {where}.metainfo.classes has',
                                'set it in every head, or metainfo=dict(classes=...) of the data '
                                'set, whichever is wrong')
