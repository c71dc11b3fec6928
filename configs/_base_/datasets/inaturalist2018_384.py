"""iNaturalist 2018 (8,142 species, with time and place) at 384, prepared as ImageNet."""
_base_ = './imagenet_internimage_384.py'
data_preprocessor = dict(num_classes=8142)
train_pipeline = _base_.train_pipeline
train_pipeline[-1]['algorithm_keys'] = ('time_place',)
test_pipeline = _base_.test_pipeline
test_pipeline[-1]['algorithm_keys'] = ('time_place',)
train_dataloader = dict(dataset=dict(
    _delete_=True, type='INaturalist2018', data_root='data/inaturalist2018',
    ann_file='train2018.json', loc_file='train2018_locations.json', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    _delete_=True, type='INaturalist2018', data_root='data/inaturalist2018',
    ann_file='val2018.json', loc_file='val2018_locations.json', pipeline=test_pipeline))
test_dataloader = val_dataloader
