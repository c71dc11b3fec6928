"""Errors for the user: their form, their fields, and how they travel."""
from __future__ import annotations

import copy
import pickle

import pytest
from torch.utils.data import DataLoader, Dataset

from mmdcn.checkpoints import CheckpointError, UnsafeCheckpointError
from mmdcn.errors import SampleError, UserError, relayed_error, suggest


@pytest.mark.parametrize(('parts', 'text'), [
    (dict(found='got 1'), 'x is not valid: got 1'),
    (dict(found='got 1', expected='2'), 'x is not valid: got 1, expected 2'),
    (dict(found='got 1', remedy='drop it'), 'x is not valid: got 1; drop it'),
    (dict(found='got 1', expected='2', remedy='drop it'),
     'x is not valid: got 1, expected 2; drop it'),
    (dict(found='got 1', expected='2', remedy='drop it', details='  a\n  b'),
     'x is not valid: got 1, expected 2; drop it\n  a\n  b'),
])
@pytest.mark.parametrize('kind', [UserError, CheckpointError, UnsafeCheckpointError])
def test_form_and_fields(kind: type[UserError], parts: dict[str, str], text: str) -> None:
    error = kind('x', **parts)
    assert str(error) == text
    fields = dict(found='', expected='', remedy='', details='') | parts
    assert {name: getattr(error, name) for name in fields} == fields
    assert error.name == 'x'


@pytest.mark.parametrize('kind', [UserError, CheckpointError, UnsafeCheckpointError])
@pytest.mark.parametrize('again', [lambda error: pickle.loads(pickle.dumps(error)), copy.copy,
                                   copy.deepcopy], ids=['pickle', 'copy', 'deepcopy'])
def test_errors_travel_with_their_fields(kind: type[UserError], again) -> None:
    error = kind('resume', 'got a', remedy='drop `resume`', details='  line')
    other = again(error)
    assert type(other) is kind and other is not error
    assert str(other) == str(error) and vars(other) == vars(error)


def test_a_checkpoint_error_is_the_users_and_a_value_error() -> None:
    assert issubclass(UnsafeCheckpointError, CheckpointError)
    assert issubclass(CheckpointError, UserError) and issubclass(UserError, ValueError)


@pytest.mark.parametrize(('name', 'text'), [
    ('max_iter', 'did you mean max_iters?'),
    ('scal', 'did you mean scale or scales?'),
    ('else', ''),
])
def test_suggestions(name: str, text: str) -> None:
    assert suggest(name, ['max_iters', 'scale', 'scales']) == text


class Refusing(Dataset):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        try:
            raise KeyError('first')
        except KeyError as error:
            raise self.error from error


@pytest.mark.parametrize(('error', 'text'), [
    (SampleError('map', 'got 1', '2', 'mend it', '  a\n  b'),
     'map is not valid: got 1, expected 2; mend it\n  a\n  b'),
    (RuntimeError('map is not valid: got 1'), None),
])
def test_error_of_a_worker_process_is_found_in_what_torch_makes_of_it(error, text):
    with pytest.raises(RuntimeError) as caught:
        next(iter(DataLoader(Refusing(error), num_workers=1)))
    found = relayed_error(caught.value)
    assert (found and str(found)) == text
    assert relayed_error(error) is None
