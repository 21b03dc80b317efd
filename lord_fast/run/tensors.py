"""Writes safetensors files tensor by tensor and hashes them on the way, without reading them back.

The bytes are those of the safetensors library, which reads them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lord_fast.errors import naming

PIECE = 1 << 22
"""Number of bytes that are hashed and written at a time."""
NAMES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names of the types in a safetensors file, in the order in which the library stores them."""


State = dict[str, dict[str, Tensor]]
"""Namespace (`decoder`, `optimizer`, ...) -> name -> tensor."""


class NotFiniteError(ValueError):
    """A tensor holds a value that is infinite or NaN.

    Attributes:
        what: The tensor, as NAMESPACE/NAME.
    """

    def __init__(self, what: str):
        super().__init__(f"{what} is not finite")
        self.what = what


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write and sync a safetensors file with the permissions that the umask allows.

    Args:
        file: The file. An existing file is replaced.
        tensors: Name -> tensor of any shape on any device.

    Returns:
        The sha256 of the file.

    Raises:
        OSError: The disk is full or not writable. The error names the file.
    """
    order = list(NAMES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    digest = hashlib.sha256()
    with naming(file), file.open("wb") as stream:
        _put(stream, digest, _header((name, tensors[name]) for name in names))
        for name in names:
            content = tensors[name].detach().cpu().contiguous().reshape(-1)
            _put(stream, digest, content.view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def check_finite(namespace: str, tensors: Mapping[str, Tensor]) -> None:
    """Check that all values of some tensors are finite.

    Raises:
        NotFiniteError: A value is not finite. The error names its tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not _is_finite(tensor.detach()):
            raise NotFiniteError(f"{namespace}/{name}")


def _header(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    entries, end = {}, 0
    for name, tensor in tensors:
        start, end = end, end + tensor.nbytes
        shape = list(tensor.shape)
        entries[name] = {
            "dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _put(stream: BinaryIO, digest: "hashlib._Hash", content: bytes | memoryview) -> None:
    view = memoryview(content)
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        digest.update(piece)
        stream.write(piece)


def _is_finite(tensor: Tensor) -> bool:
    # A sum with an infinite value or a NaN is one of them too. It is many times as fast as isfinite
    # on a CPU. The sum of finite values may be too large, which the second look finds out.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
