"""What a file says of its sizes, compared with the bytes it has, before and after it is read."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch
from torch import Tensor

# Expanded tensors (stride 0) may say that they are larger than what is stored, all together by
# this many bytes.
_EXPANDED = 2 ** 26
_ZIP = b'PK\x03\x04'


class MalformedError(ValueError):
    """A file is whole, but says of itself what cannot be."""


def check_archive(file: BinaryIO) -> None:
    """Refuse an archive of ``torch.save`` whose entries would take more memory than the file.

    ``torch.save`` compresses nothing, so what is larger unpacked was made by another hand.

    Args:
        file: Binary file, read from its beginning and rewound; other formats pass.

    Raises:
        MalformedError: The entries are larger than the file.
    """
    file.seek(0)
    is_zip = file.read(len(_ZIP)) == _ZIP
    if is_zip:
        size = _file_size(file)
        with ZipFile(file) as archive:
            _check_unpacked(sum(entry.file_size for entry in archive.infolist()), size)
        file.seek(0)
        # Where the archive has two tables of contents, torch may go by the other one.
        reader = torch._C.PyTorchFileReader(file)
        _check_unpacked(sum(map(reader.get_record_size, reader.get_all_records())), size)
    file.seek(0)


def check_tensors(content: Any, file: BinaryIO) -> None:
    """Refuse tensors that claim more than their file holds, and broken sparse ones.

    Args:
        content: What was unpickled.
        file: Where it was read from.

    Raises:
        MalformedError: A tensor, named by where it stands, is not valid.
    """
    size = _file_size(file)
    storages: set[int] = set()
    stored = expanded = 0
    for name, tensor in _tensors(content, '', set()):
        if tensor.layout is not torch.strided:
            _check_sparse(name, tensor)
            continue
        if tensor.is_meta or tensor.is_nested:
            continue
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            stored += storage.nbytes()
        expanded += max(tensor.numel() * tensor.element_size() - storage.nbytes(), 0)
        if stored > size or expanded > _EXPANDED:
            raise MalformedError(f'{name} of shape {tuple(tensor.shape)} is larger than the file')


def _file_size(file: BinaryIO) -> int:
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def _check_unpacked(unpacked: int, size: int) -> None:
    if unpacked > size:
        raise MalformedError(f'it is compressed: {unpacked} bytes in a file of {size}')


def _tensors(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor once, with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
        seen.add(id(value))
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(item, f'{name}.{str(key)[:80]}'.lstrip('.'), seen)


def _check_sparse(name: str, tensor: Tensor) -> None:
    """Refuse indices beyond the shape: what makes a sparse tensor dense does not look."""
    try:
        if tensor.layout is torch.sparse_coo:
            torch._validate_sparse_coo_tensor_args(
                tensor._indices(), tensor._values(), tensor.shape, tensor.is_coalesced())
            return
        by_row = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
        compressed = tensor.crow_indices() if by_row else tensor.ccol_indices()
        plain = tensor.col_indices() if by_row else tensor.row_indices()
        torch._validate_sparse_compressed_tensor_args(
            compressed, plain, tensor.values(), tensor.shape, tensor.layout)
    except RuntimeError as error:
        raise MalformedError(f'{name} is a broken sparse tensor: '
                             f'{str(error).splitlines()[0]}') from error
