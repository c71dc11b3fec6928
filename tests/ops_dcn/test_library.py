"""Loading and building the compiled libraries: what is said where something is missing."""
from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ops_dcn import _library
from tests.helpers import ROOT


def fresh_problem(monkeypatch: pytest.MonkeyPatch, library: Path | None = None) -> str:
    """What cuda_problem says if asked for the first time."""
    if library is not None:
        monkeypatch.setattr(_library, '_CUDA_LIBRARY', library)
    return _library.cuda_problem.__wrapped__()


def test_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert 'is built without CUDA; install a CUDA build of torch' in fresh_problem(monkeypatch)


def test_library_is_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    got = fresh_problem(monkeypatch, tmp_path / '_cuda.so')
    assert got.startswith('the CUDA kernels of ops_dcn are not built: got no file')
    assert 'pip install nvidia-cuda-nvrtc-cu12' in got


def test_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    (tmp_path / '_cuda.so').write_text('no library')
    got = fresh_problem(monkeypatch, tmp_path / '_cuda.so')
    assert f'torch {torch.__version__} cannot load' in got
    assert 'expected one built for torch >= 2.10' in got


def test_driver_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    (tmp_path / '_cuda.so').touch()

    def load(path: str) -> None:
        raise OSError('Could not load this library') from OSError(
            'libcuda.so.1: cannot open shared object file')
    monkeypatch.setattr(torch.ops, 'load_library', load)
    assert "NVIDIA's driver is not installed: got no libcuda.so.1" in fresh_problem(
        monkeypatch, tmp_path / '_cuda.so')


def test_call_on_cuda_without_kernels_says_why() -> None:
    """No CUDA tensor can be made here: the kernel registered for them is called directly."""
    if not _library.cuda_problem():
        pytest.skip('the CUDA kernels are there')
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with pytest.raises(ImportError, match='ops_dcn cannot run on CUDA: '):
        torch.ops.ops_dcn.dcnv4_forward.default.redispatch(
            keys, torch.ones(1, 4, 4, 2), torch.ones(1, 4, 4, 32), [3, 3, 1, 1, 1, 1, 1, 1, 1, 0],
            1.0, False)


def run_without_library(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the package lies without its compiled library."""
    shutil.copytree(ROOT / 'ops_dcn', folder / 'ops_dcn',
                    ignore=shutil.ignore_patterns('*.so', 'csrc', '__pycache__'))
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)


def test_first_call_reports_a_missing_library(tmp_path: Path) -> None:
    """Until then the package, its reference and its modules can be used."""
    code = ('import ops_dcn, torch; image = torch.ones(1, 3, 3, 16); '
            'ops_dcn.reference.dcnv4(image, torch.ones(1, 3, 3, 27), groups=1); '
            'layer = ops_dcn.DCNv4(16); print("so far"); layer(image)')
    result = run_without_library(tmp_path, '-c', code)
    assert result.stdout == 'so far\n'
    last = result.stderr.splitlines()[-1]
    assert last.startswith('ImportError: compiled library is not valid: got no file')
    assert 'make env' in last


def test_fake_cuda_tensors_need_no_kernels() -> None:
    with torch._subclasses.FakeTensorMode():
        value = torch.empty(1, 4, 4, 2, device='cuda')
        import ops_dcn
        out = ops_dcn.dcnv4(value, torch.empty(1, 4, 4, 32, device='cuda'), groups=1)
        assert (out.shape, out.device.type) == (value.shape, 'cuda')


@pytest.fixture
def cubins(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ('OPS_DCN_CUDA_ARCHS', 'OPS_DCN_NVRTC', 'CUDA_HOME', 'CUDA_PATH'):
        monkeypatch.delenv(name, raising=False)
    path = ROOT / 'ops_dcn' / 'csrc' / 'cuda' / 'cubins.py'
    spec = importlib.util.spec_from_file_location('cubins', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_architectures(cubins: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cubins.architectures(portable=True) == cubins.ARCHITECTURES
    monkeypatch.setattr(cubins.subprocess, 'run', lambda *a, **k: subprocess.CompletedProcess(
        a, 0, '9.0\n8.7\n12.1\n6.1\n'))
    # Of 6.1 there are no kernels to choose from: they are compiled for it.
    assert cubins.architectures(portable=False) == (61, 86, 90, 120)
    monkeypatch.setattr(cubins.subprocess, 'run', lambda *a, **k: subprocess.CompletedProcess(
        a, 9, 'NVIDIA-SMI has failed'))
    assert cubins.architectures(portable=False) == (80, 90)
    monkeypatch.setenv('OPS_DCN_CUDA_ARCHS', '90, 75')
    assert cubins.architectures(portable=True) == (75, 90)
    monkeypatch.setenv('OPS_DCN_CUDA_ARCHS', 'sm_90')
    with pytest.raises(cubins.CubinError, match="OPS_DCN_CUDA_ARCHS is not valid: got 'sm_90'"):
        cubins.architectures(portable=True)


def test_finding_nvrtc(cubins: ModuleType, monkeypatch: pytest.MonkeyPatch,
                       tmp_path: Path) -> None:
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.setattr(cubins.sysconfig, 'get_path', lambda name: str(tmp_path))
    for package, version in (('cu13', 13), ('cuda_nvrtc', 12)):
        folder = tmp_path / 'nvidia' / package / 'lib'
        folder.mkdir(parents=True)
        for name in (f'libnvrtc.so.{version}', f'libnvrtc-builtins.so.{version}.0',
                     f'libnvrtc.alt.so.{version}'):
            (folder / name).touch()
        # CUDA 12 comes first, wherever both are.
        assert cubins.find_nvrtc() == folder / f'libnvrtc.so.{version}'
    monkeypatch.setenv('OPS_DCN_NVRTC', str(tmp_path / 'nvidia' / 'cu13' / 'lib'))
    assert cubins.find_nvrtc().name == 'libnvrtc.so.13'
    monkeypatch.setenv('OPS_DCN_NVRTC', str(tmp_path / 'nowhere'))
    with pytest.raises(cubins.CubinError, match='OPS_DCN_NVRTC is not valid'):
        cubins.find_nvrtc()


def test_kernels_that_do_not_compile(cubins: ModuleType, tmp_path: Path) -> None:
    nvrtc = cubins.find_nvrtc()
    if nvrtc is None:
        pytest.skip('needs NVRTC')
    script = [sys.executable, str(cubins.__spec__.origin), '--nvrtc', str(nvrtc), '--arch', '80']
    source, target = tmp_path / 'x.cu', tmp_path / 'x.cubin'
    source.write_text('#include <stdint.h>\nextern "C" __global__ void k(int64_t* p) { *p = 1; }\n')
    subprocess.run([*script, str(source), '-o', str(target)], check=True)
    assert target.read_bytes()[:4] == b'\x7fELF'
    source.write_text('extern "C" __global__ void k() { wrong }\n')
    got = subprocess.run([*script, str(source), '-o', str(target)], capture_output=True, text=True,
                         check=False)
    assert got.returncode == 1
    assert 'identifier "wrong" is undefined' in got.stderr
    assert 'error: NVRTC cannot compile' in got.stderr


@pytest.mark.parametrize(('variable', 'value', 'words'), [
    ('OPS_DCN_CUDA', 'yes', "OPS_DCN_CUDA is not valid: got 'yes', expected 0"),
    ('OPS_DCN_CUDA_ARCHS', 'x', "OPS_DCN_CUDA_ARCHS is not valid: got 'x'"),
    ('OPS_DCN_NVRTC', '/nowhere', 'OPS_DCN_NVRTC is not valid: got /nowhere')])
def test_build_refuses_options_that_are_not_valid(variable: str, value: str, words: str) -> None:
    got = subprocess.run([sys.executable, 'setup.py', '--name'], cwd=ROOT, capture_output=True,
                         text=True, check=False, env={**os.environ, variable: value})
    assert got.returncode == 1
    assert f'error: {words}' in got.stderr
