"""Files that claim more than they hold: refused by name, before the memory is full."""
from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmdcn.checkpoints import CheckpointError, read_checkpoint

ALLOWED_MB = 100
MEASURE = """
import json, re, sys
from pathlib import Path
from mmdcn.checkpoints import CheckpointError, read_checkpoint
def memory(kind):
    return int(re.search(kind + r':\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024
results = {}
for path in sys.argv[1:]:
    Path('/proc/self/clear_refs').write_text('5')  # the peak is counted anew
    before = memory('VmRSS')
    try:
        read_checkpoint(path)
        text = 'read'
    except CheckpointError as error:
        text = str(error)
    results[path] = text, memory('VmHWM') - before
print(json.dumps(results))
"""


def archive(path: str, content: object, *, compression: int = zipfile.ZIP_DEFLATED,
            more: dict[str, bytes] | None = None, pickled: bytes | None = None) -> None:
    """A file of torch.save, zipped again, with other entries and another pickle if given."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, 'w', compression) as new:
        for name in old.namelist():
            if name.rpartition('/')[2] not in (more or {}):
                is_pickle = name.endswith('data.pkl') and pickled is not None
                new.writestr(name, pickled if is_pickle else old.read(name))
        root = old.namelist()[0].partition('/')[0]
        for name, value in (more or {}).items():
            new.writestr(f'{root}/{name}', value)


def code(*calls: bytes) -> bytes:
    """A pickle of protocol 2 of what these opcodes leave."""
    return b'\x80\x02' + b''.join(calls) + b'.'


def call(module: bytes, name: bytes, arguments: bytes) -> bytes:
    return b'c' + module + b'\n' + name + b'\n' + arguments + b'\x85R'


LARGE = b'\x8a\x05\x00\xe4\x0b\x54\x02'  # 10 ** 10
MILLIONS = b'J' + (10 ** 8).to_bytes(4, 'little')
DOUBLED = b'X\x01\x00\x00\x00aq\x00' + b''.join(
    b'cpathlib\nPosixPath\n' + (b'h' + bytes([i])) * 2 + b'\x86Rq' + bytes([i + 1])
    for i in range(30))


def legacy(path: str, change: Callable[[bytes], bytes]) -> None:
    torch.save({'a': torch.ones(7)}, path, _use_new_zipfile_serialization=False)
    Path(path).write_bytes(change(Path(path).read_bytes()))


def expanded(path: str) -> None:
    torch.save({'a': torch.ones(1).expand(10 ** 6, 10 ** 6)}, path)


def from_pickle(*calls: bytes) -> Callable[[str], None]:
    return lambda path: archive(path, {'a': torch.ones(1)}, compression=zipfile.ZIP_STORED,
                                pickled=code(*calls))


HEX = b'c_codecs\nencode\n' * 28 + b'X\x0f\x00\x00\x00' + b'a' * 15 + (
    b'X\x03\x00\x00\x00hex\x86R' * 28)
BOMBS = {
    'compressed weights': lambda path: archive(path, {'a': torch.zeros(5 * 10 ** 7)}),
    'compressed version': lambda path: archive(path, {'a': torch.zeros(1)},
                                               more={'version': b'0' * 2 * 10 ** 8}),
    'compressed pickle': lambda path: archive(path, {'a': 'x' * 2 * 10 ** 8}),
    'expanded': expanded,
    'legacy storage': lambda path: legacy(path, lambda raw: raw.replace(
        b'K\x07Nt', b'J' + (10 ** 9).to_bytes(4, 'little') + b'Nt')),
    'list of bytes': from_pickle(call(b'builtins', b'list', call(b'builtins', b'bytes', MILLIONS))),
    'set of a tensor': from_pickle(call(b'builtins', b'set', call(b'torch', b'Tensor', MILLIONS))),
    'size of bytes': from_pickle(call(b'torch', b'Size', call(b'builtins', b'bytearray',
                                                              MILLIONS))),
    'large bytes': from_pickle(call(b'builtins', b'bytes', LARGE)),
    'hex of hex': from_pickle(HEX),
    'doubled paths': from_pickle(DOUBLED),
}


@pytest.fixture(scope='module')
def measured(tmp_path_factory) -> dict[str, tuple[str, float]]:
    """What reading each of them said, and by how many MB the peak of the memory rose."""
    folder = tmp_path_factory.mktemp('bombs')
    paths = {str(folder / f'{number}.pth'): name for number, name in enumerate(BOMBS)}
    for path, name in paths.items():
        BOMBS[name](path)
    run = subprocess.run([sys.executable, '-c', MEASURE, *paths], capture_output=True, text=True,
                         timeout=300)
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout.splitlines()[-1])
    return {name: results[path] for path, name in paths.items()}


@pytest.mark.parametrize('name', BOMBS)
def test_a_small_file_takes_little_memory(measured, name):
    message, grown = measured[name]
    assert 'is not valid' in message and '\n' not in message
    assert grown < ALLOWED_MB, f'{grown} MB'


def test_what_is_said_of_compressed_files(tmp_path):
    archive(str(tmp_path / 'a.pth'), {'a': torch.zeros(10 ** 5)})
    with pytest.raises(CheckpointError, match='compressed: [0-9]+ bytes in a file of') as caught:
        read_checkpoint(tmp_path / 'a.pth')
    assert 'cut off' not in str(caught.value)


def test_zipped_again_without_compression(tmp_path):
    archive(str(tmp_path / 'a.pth'), {'a': torch.zeros(10 ** 5)}, compression=zipfile.ZIP_STORED)
    assert read_checkpoint(tmp_path / 'a.pth')['state_dict']['a'].numel() == 10 ** 5


def test_views_and_shared_weights_are_no_claim(tmp_path):
    weight = torch.ones(1000)
    content = {f'w{i}': weight[i:] for i in range(100)}
    content['expanded'] = torch.ones(1, 64).expand(512, 64)
    torch.save(content, tmp_path / 'a.pth')
    assert len(read_checkpoint(tmp_path / 'a.pth')['state_dict']) == 101


def sparse(layout: torch.layout, beyond: bool) -> torch.Tensor:
    dense = torch.eye(4)
    made = dense.to_sparse(layout=layout, **(
        {'blocksize': (2, 2)} if layout in (torch.sparse_bsr, torch.sparse_bsc) else {}))
    if beyond:
        indices = made._indices() if layout is torch.sparse_coo else (
            made.col_indices() if layout in (torch.sparse_csr, torch.sparse_bsr)
            else made.row_indices())
        indices += 10 ** 6
    return made


@pytest.mark.parametrize('form', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('layout', [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc,
                                    torch.sparse_bsr, torch.sparse_bsc], ids=str)
@pytest.mark.parametrize('beyond', [False, True])
def test_sparse_weights(tmp_path, layout, beyond, form):
    torch.save({'state_dict': {'x.weight': sparse(layout, beyond), 'b': torch.ones(1)}},
               tmp_path / 'a.pth', _use_new_zipfile_serialization=form)
    if not beyond:
        assert read_checkpoint(tmp_path / 'a.pth')['state_dict'].keys() == {'x.weight', 'b'}
        return
    with pytest.raises(CheckpointError, match=r'dict\.x\.weight is a broken sparse') as caught:
        read_checkpoint(tmp_path / 'a.pth')
    assert 'cut off' not in str(caught.value)
