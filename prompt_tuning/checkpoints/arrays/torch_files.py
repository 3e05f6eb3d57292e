"""PyTorch's weight files, `pytorch_model.bin`, if PyTorch is installed.

They are pickles, since PyTorch 1.6 in a zip together with the arrays. They are read only by
`torch.load(weights_only=True)`, which creates nothing but tensors.
"""

import importlib.util
import warnings
import zipfile
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from prompt_tuning.checkpoints.arrays.stored_arrays import StoredArray, array_in_memory, reading
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown_names


def stored_torch(path: str | epath.PathLike) -> dict[str, StoredArray]:
    """Returns a file's tensors by name. Those in a local zip are memory-mapped; others are read.

    Raises:
      UserError: PyTorch isn't installed, or the file is damaged or contains other objects.
    """
    path = epath.Path(path)
    with reading(path), path.open("rb") as stream:
        is_zip = zipfile.is_zipfile(stream)
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"Reading the PyTorch file {str(path)!r} needs PyTorch, which isn't installed: pip "
            "install torch, or give a copy with model.safetensors."
        )
    state = _load(path, mapped=is_zip and "://" not in str(path))
    if not isinstance(state, dict):
        raise _not_weights(path, f"it contains a {type(state).__name__}, not a dict of tensors")
    return {str(name): _stored(path, str(name), tensor) for name, tensor in state.items()}


def _load(path: epath.Path, *, mapped: bool) -> Any:
    import torch

    try:
        with reading(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown pickles, which the error below reports
            if mapped:
                return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # PyTorch raises whatever its unpickler encounters
        text = " ".join(str(error).split())
        if "weights_only" in text or "Unsupported" in text:
            raise _not_weights(
                path, "it is a pickle that contains more than tensors, which is never loaded"
            ) from error
        raise _not_weights(path, text.partition(". ")[0] or type(error).__name__) from error


def _not_weights(path: epath.Path, what: str) -> UserError:
    return UserError(
        f"Can't read weights from {str(path)!r}: {what}. Expected a pytorch_model.bin that "
        "torch.load(weights_only=True) reads, or safetensors."
    )


def _stored(path: epath.Path, name: str, tensor: Any) -> StoredArray:
    import torch

    if not isinstance(tensor, torch.Tensor):
        what = f"{shown_names([name])} is a {type(tensor).__name__}, not a tensor"
        raise _not_weights(path, what)
    try:
        values = tensor.detach()
        if tensor.dtype == torch.bfloat16:  # which NumPy doesn't have
            array = values.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        else:
            array = values.numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, of eight bits
        what = (
            f"{shown_names([name])} has dtype {tensor.dtype} and layout {tensor.layout}, which "
            "NumPy doesn't support"
        )
        raise _not_weights(path, what) from error
    return array_in_memory(np.atleast_1d(array))
