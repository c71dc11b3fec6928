"""The detectors on LVIS, CrowdHuman, OpenImages and PASCAL VOC against their published recipes."""
from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config

from tests.configs import recipes
from tests.helpers import ROOT

CONFIGS = {
    'lvis/cb-dino-4scale_internimage-h_16xb1-80k_lvis-v1.py':
        'lvis/dino_4scale_cbinternimage_h_objects365_lvis_val_ss.py',
    'lvis/cb-dino-4scale_internimage-h_16xb1-80k_lvis-v1-minival.py':
        'lvis/dino_4scale_cbinternimage_h_objects365_lvis_minival_ss.py',
    'crowdhuman/cascade-rcnn_internimage-xl_fpn_64xb2-3x_crowdhuman.py':
        'crowd_human/cascade_internimage_xl_fpn_3x_crowd_human.py',
    'openimages/cb-dino-4scale_internimage-h_16xb1-100k_openimages.py':
        'openimages/dino_4scale_cbinternimage_h_objects365_openimages_ss.py',
    'voc/cb-dino-4scale_internimage-h_16xb1-20k_voc07.py':
        'voc/dino_4scale_cbinternimage_h_objects365_voc07.py',
    'voc/cb-dino-4scale_internimage-h_16xb1-20k_voc12.py':
        'voc/dino_4scale_cbinternimage_h_objects365_voc12.py',
}
ASSUMED_BATCH = 16  # where nothing published names the number of GPUs
# Every deliberate difference from a published value: field -> (published, ours, reason).
DEVIATIONS: dict[str, tuple[Any, Any, str]] = {
    'CrowdHuman annotations': ('annotations/annotation_train.json', 'annotation_train.odgt',
                               'the original of the same boxes, which mmdet 3 reads'),
    'CrowdHuman metric': ('bbox of COCO', ['AP', 'MR', 'JI'],
                          "the set's own; no published number asks for COCO's"),
    'validation interval': ('100 to 2000', 2000, 'has no influence on the weights'),
    'snip_cfg, fed_loss_cfg': ('v3, 50 classes', recipes.ABSENT,
                               'options of train_cfg that the published code does not read'),
    'load_from': ('https://huggingface.co/OpenGVLab/InternImage/resolve/main/dino_4scale_cbintern'
                  'image_h_objects365_', 'checkpoints/cb-dino-4scale_internimage-h_objects365_',
                  'the same file, converted to the names of mmdet 3'),
}


def leaf(dataset: Any) -> Any:
    """The data set, or the first, within its wrappers."""
    while 'data_root' not in dataset:
        dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
    return dataset


@pytest.fixture(params=CONFIGS, ids=lambda path: path.split('/')[-1][:-3])
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Config]:
    name = f'InternImage/detection/configs/{CONFIGS[request.param]}'
    return recipes.published(name), recipes.load(ROOT / 'configs' / request.param)


def test_every_published_recipe_has_a_config() -> None:
    covered = {f'InternImage/detection/configs/{name}' for name in CONFIGS.values()}
    assert {record['id'] for record in recipes.all_published('detection')
            if record['dataset'] != 'COCO' and 'detectron2' not in record['id']} == covered


@pytest.mark.parametrize('name', ['crowdhuman/cascade-rcnn_internimage-xl_fpn_64xb2-3x_crowdhuman',
                                  'lvis/cb-dino-4scale_internimage-h_16xb1-80k_lvis-v1',
                                  'voc/cb-dino-4scale_internimage-h_16xb1-20k_voc07'])
def test_parameters_train_as_published(name: str) -> None:
    path = ROOT / f'configs/{name}.py'
    recipe = recipes.published(f'InternImage/detection/configs/{CONFIGS[name + ".py"]}')
    model = recipes.build(path)
    assert not recipes.different(recipes.parameter_groups(recipes.load(path), model),
                                 recipes.expected_groups(recipe, model))


def test_model_is_the_published_one(case: tuple[dict[str, Any], Config]) -> None:
    recipe, cfg = case
    published, head = recipe['architecture'], recipe['head']
    arch = {192: 'xlarge', 320: 'huge'}[published['backbone']['channels']]
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.drop_path_rate, backbone.get('with_cp', False)) == (
        arch, published['backbone']['drop_path_rate'], published['backbone']['with_cp'])
    neck = published['neck']
    neck = neck[0] if isinstance(neck, list) else neck
    assert list(cfg.model.neck.in_channels) == neck['in_channels']
    if 'roi_head' in head:
        assert recipes.plain(cfg.model.roi_head.bbox_head) == head['roi_head']['bbox_head']
        assert 'mask_head' not in cfg.model.roi_head and 'mask_head' not in head['roi_head']
        assert len(cfg.model.train_cfg.rcnn) == len(recipe['train_cfg']['rcnn'])
    else:
        box_head = head['bbox_head']
        assert cfg.model.bbox_head.num_classes == box_head['num_classes']
        assert cfg.model.num_queries == box_head['num_query']
        assert cfg.model.dn_cfg.group_cfg == box_head['dn_cfg']['group_cfg']


def test_schedule_is_the_published_one(case: tuple[dict[str, Any], Config]) -> None:
    recipe, cfg = case
    runner, lr = recipe['schedule']['runner'], recipe['schedule']['lr_config']
    assert cfg.train_cfg.get('max_epochs') == runner.get('max_epochs')
    assert cfg.train_cfg.get('max_iters') == runner.get('max_iters')
    warmup, *steps = cfg.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.begin, warmup.end, warmup.start_factor) == (
        'LinearLR', False, 0, lr['warmup_iters'], lr['warmup_ratio'])
    assert [list(step.milestones) for step in steps] == ([lr['step']] if lr['step'] else [])
    optimizer, stated = cfg.optim_wrapper.optimizer, recipe['optimizer']
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == (
        stated['type'], stated['lr'], stated['weight_decay'])
    clip = cfg.optim_wrapper.get('clip_grad')
    assert (clip and clip['max_norm']) == (recipe['grad_clip'] and recipe['grad_clip']['max_norm'])
    assert cfg.optim_wrapper.type == 'OptimWrapper' and not recipe['amp']
    assert not cfg.get('custom_hooks') and not recipe['ema']


def test_data_is_the_published_one(case: tuple[dict[str, Any], Config]) -> None:
    recipe, cfg = case
    loader, stated = cfg.train_dataloader, recipe['data']
    assert loader.batch_size == recipe['batch']['samples_per_gpu']
    assert cfg.auto_scale_lr.base_batch_size == (
        recipe['batch']['total_follow'] or ASSUMED_BATCH)
    data = leaf(loader.dataset)
    assert recipes.pipeline_summary(data.pipeline) == recipes.published_summary(recipe)
    assert data.type == stated['train_type']
    files = stated['train_ann'] if isinstance(stated['train_ann'], list) else [stated['train_ann']]
    if recipe['dataset'] == 'CrowdHuman':
        published, ours, _ = DEVIATIONS['CrowdHuman annotations']
        assert files[0].endswith(published) and data.ann_file == ours
    else:
        assert data.data_root + data.ann_file == files[0]
    if stated['wrappers']:
        assert {key: loader.dataset[key] for key in stated['wrappers']} == stated['wrappers']
    else:
        assert loader.dataset is data
    normalise, = recipe['augmentation']['summary']['Normalize']
    preprocessor = cfg.model.data_preprocessor
    assert (list(preprocessor.mean), list(preprocessor.std), preprocessor.bgr_to_rgb) == (
        normalise['mean'], normalise['std'], normalise['to_rgb'])
    assert preprocessor.pad_size_divisor == recipe['test']['pad'][0]['size_divisor']


def test_both_years_of_voc_train_three_times() -> None:
    cfg = recipes.load(ROOT / 'configs/voc/cb-dino-4scale_internimage-h_16xb1-20k_voc07.py')
    repeated = cfg.train_dataloader.dataset
    assert [part.ann_file for part in repeated.dataset.datasets] == [
        f'VOC{year}/ImageSets/Main/trainval.txt' for year in (2007, 2012)]
    assert (repeated.type, repeated.times) == ('RepeatDataset', 3)
    # mmdet 2 trains on objects of any size.
    assert all(part.filter_cfg == dict(filter_empty_gt=True, min_size=32)
               for part in repeated.dataset.datasets)


def test_test_settings_are_the_published_ones(case: tuple[dict[str, Any], Config]) -> None:
    recipe, cfg = case
    data, stated = cfg.test_dataloader.dataset, recipe['test']
    resize, = [step for step in data.pipeline if step.type == 'Resize']
    assert list(resize.scale) == stated['img_scale'] and resize.keep_ratio
    assert cfg.model.test_cfg.get('max_per_img') == stated['test_cfg'].get('max_per_img')
    for name, value in (stated['test_cfg'].get('rcnn') or {}).items():
        if name != 'mask_thr_binary':  # without masks it has no meaning
            assert recipes.plain(cfg.model.test_cfg.rcnn[name]) == value
    if recipe['dataset'] == 'CrowdHuman':
        assert cfg.test_evaluator.metric == DEVIATIONS['CrowdHuman metric'][1]
    else:
        assert stated['ann'].endswith(data.data_root.strip('./') + '/' + data.ann_file)
    if recipe['dataset'] == 'PASCAL VOC':
        assert cfg.test_evaluator.eval_mode == (
            'area' if 'VOC2012' in data.ann_file else '11points')
    if 'ann_file' in cfg.test_evaluator:
        assert cfg.test_evaluator.ann_file == data.data_root + data.ann_file


def test_training_starts_from_the_published_weights(case: tuple[dict[str, Any], Config]) -> None:
    recipe, cfg = case
    start = recipe['pretrained']
    if start['backbone']:
        assert cfg.model.backbone.init_cfg.checkpoint == start['backbone']['checkpoint']
    else:
        published, ours, _ = DEVIATIONS['load_from']
        assert cfg.load_from == start['load_from'].replace(published, ours)
