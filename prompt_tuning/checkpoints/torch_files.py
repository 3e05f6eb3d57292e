"""PyTorch's weight files, `pytorch_model.bin`, where PyTorch is installed.

They are pickles, in a zip with the arrays beside it since PyTorch 1.6. Only
`torch.load(weights_only=True)` reads them, which makes tensors and nothing else.
"""

import importlib.util
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from prompt_tuning.checkpoints.stored_arrays import Rows, StoredArray, reading, row_ranges
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown_names


def stored_torch(path: str | epath.PathLike) -> dict[str, StoredArray]:
    """Returns the tensors of a file by name; PyTorch maps those of a local zip, and reads others.

    Raises:
      UserError: PyTorch isn't installed, or the file is damaged or holds other things than tensors.
    """
    path = epath.Path(path)
    with reading(path), path.open("rb") as stream:
        is_zip = zipfile.is_zipfile(stream)
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{str(path)!r} is a PyTorch file, which only PyTorch can read, and that isn't "
            "installed: pip install torch, or give a copy with model.safetensors."
        )
    state = _load(path, mapped=is_zip and "://" not in str(path))
    if not isinstance(state, dict):
        raise _not_weights(path, f"it holds a {type(state).__name__}, not tensors by name")
    return {str(name): _stored(path, str(name), tensor) for name, tensor in state.items()}


def _load(path: epath.Path, *, mapped: bool) -> Any:
    import torch

    try:
        with reading(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it doesn't know, which are told below
            if mapped:
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # PyTorch raises what its unpickler comes upon
        told = " ".join(str(error).split())
        if "weights_only" in told or "Unsupported" in told:
            raise _not_weights(
                path, "it is a pickle with more in it than tensors, which is never loaded"
            ) from error
        raise _not_weights(path, told.partition(". ")[0] or type(error).__name__) from error


def _not_weights(path: epath.Path, what: str) -> UserError:
    return UserError(
        f"Can't read weights from {str(path)!r}: {what}. Expected a pytorch_model.bin that "
        "torch.load(weights_only=True) reads, or safetensors."
    )


def _number_types() -> tuple[Any, ...]:
    """The dtypes of plain numbers that NumPy has too."""
    import torch

    floats = (torch.float64, torch.float32, torch.float16)
    return (*floats, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def _stored(path: epath.Path, name: str, tensor: Any) -> StoredArray:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise _not_weights(
            path, f"{shown_names([name])} is a {type(tensor).__name__}, not a tensor"
        )
    bfloat16 = tensor.dtype == torch.bfloat16
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or (not bfloat16 and tensor.dtype not in _number_types()):
        raise _not_weights(
            path, f"{shown_names([name])} holds {tensor.dtype}, {tensor.layout}, not numbers"
        )
    shape = tuple(tensor.shape) or (1,)
    row_bytes = tensor.element_size() * int(np.prod(shape[1:], dtype=np.int64))

    def blocks() -> Iterator[Rows]:
        rows = tensor.detach().reshape(shape)
        for start, stop in row_ranges(shape[0], row_bytes):
            block = rows[start:stop].contiguous()
            # NumPy has no bfloat16 that PyTorch would know.
            array = block.view(torch.int16).numpy() if bfloat16 else block.numpy()
            yield start, array.view(ml_dtypes.bfloat16) if bfloat16 else array

    dtype = (
        np.dtype(ml_dtypes.bfloat16)
        if bfloat16
        else torch.empty(0, dtype=tensor.dtype).numpy().dtype
    )
    return StoredArray(shape=shape, dtype=dtype, blocks=blocks)
