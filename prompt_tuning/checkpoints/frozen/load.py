"""Loads a frozen model of any format, detected by the files' contents.

locations.py finds it; weights.py (our format), huggingface.py and t5x.py read it.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from prompt_tuning.checkpoints.arrays.msgpack_files import FIRST_BYTES
from prompt_tuning.checkpoints.arrays.stored_arrays import (
    ShardingOf,
    StoredParameter,
    read_parameters,
    reading,
)
from prompt_tuning.checkpoints.frozen.huggingface import CONFIG_FILE, stored_huggingface
from prompt_tuning.checkpoints.frozen.layouts import check_size
from prompt_tuning.checkpoints.frozen.locations import locate, model_name
from prompt_tuning.checkpoints.frozen.t5x import INDEX_FILE, ORBAX_FILE, item_folder, stored_t5x
from prompt_tuning.checkpoints.frozen.weights import WEIGHTS_FILE, stored_weights, unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.files import check_kind
from prompt_tuning.json_text import shown_names
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.parameters import ModelConfig
from prompt_tuning.models.t5 import Params

_FORMS = (
    f"a Hugging Face folder ({CONFIG_FILE} and weights), a T5X checkpoint ({INDEX_FILE} or "
    f"{ORBAX_FILE}), a safetensors file of this package, or a folder with {WEIGHTS_FILE}"
)


def load_frozen(
    path_or_name: str | epath.PathLike,
    config: ModelConfig | None = None,
    dtype: str | None = None,
    sharding_of: ShardingOf | None = None,
    *,
    quantization: str = "",
    quantization_block: int = 64,
    quantize_output_layer: bool = False,
) -> tuple[ModelConfig, Params]:
    """Returns the config and the weights of a frozen model.

    Args:
      path_or_name: name of a shipped model or of a model on the Hugging Face hub; or the local or
        gs:// path of our safetensors file, of a folder written by `merge` or `pretrain`, of a
        Hugging Face folder, or of a T5X checkpoint (folder or single file).
      config: the expected size. The files of a T5X checkpoint don't determine all fields; the
        others come from `config`.
      dtype: "float32" or "bfloat16" to cast the weights to; if None, the stored one.
      sharding_of: (a parameter's "/"-joined name, its shape) -> its sharding; if None, everything
        is on the default device.
      quantization: "int8" or "nf4" to quantize kernels to 8 or 4 bits, one after another as they
        are read; as in `Compute`.
      quantization_block: number of values that share a scale; as in `Compute`.
      quantize_output_layer: also quantize the output layer's kernel; as in `Compute`.

    Raises:
      UserError: it isn't a model, is damaged, or has another size than `config`; or it can't be
        quantized with these options.
    """
    compute = Compute(
        quantization=quantization,
        quantization_block=quantization_block,
        quantize_output_layer=quantize_output_layer,
    )
    stored = stored_frozen(path_or_name, config)
    flat = read_parameters(stored.parameters, dtype, sharding_of, compute)
    return stored.config, unflatten(flat)


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A frozen model on disk, whose values haven't been read.

    Attributes:
      format: name of the format, such as "Hugging Face".
      config: its architecture.
      parameters: by "/"-joined name.
    """

    format: str
    config: ModelConfig
    parameters: dict[str, StoredParameter]


def stored_frozen(
    path_or_name: str | epath.PathLike, config: ModelConfig | None = None
) -> StoredModel:
    """Finds a frozen model, detects its format, and checks names and shapes; reads no weights.

    Raises:
      UserError: as for `load_frozen`.
    """
    path, name = locate(path_or_name), model_name(path_or_name)
    if "://" not in str(path):
        check_kind(Path(path))
    if path.is_dir() and (path / CONFIG_FILE).exists():
        kind, (found, parameters) = "Hugging Face", stored_huggingface(path, name=name)
    elif path.is_dir() and (path / WEIGHTS_FILE).exists():
        kind, (found, parameters, _) = "safetensors", stored_weights(path / WEIGHTS_FILE)
    elif path.is_dir() and item_folder(path) is None:
        found = sorted(each.name for each in path.iterdir())
        raise UserError(
            f"{str(path)!r} isn't a checkpoint; expected {_FORMS}. The folder contains "
            f"{shown_names(found) or 'nothing'}."
        )
    elif path.is_file() and _is_safetensors(path):
        kind, (found, parameters, _) = "safetensors", stored_weights(path)
    else:
        kind, (found, parameters) = "T5X", stored_t5x(path, config, name=name)
    if config is not None:
        check_size(found, config, source=str(path_or_name))
    return StoredModel(format=kind, config=found, parameters=parameters)


def _is_safetensors(path: epath.Path) -> bool:
    """Returns whether the first bytes are those of safetensors and not of a T5X file.

    Raises:
      UserError: they are neither, such as a pickle or a zip.
    """
    with reading(path), path.open("rb") as stream:
        start = stream.read(9)
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise UserError(
            f"{str(path)!r} is a pickle, which is never loaded: loading one can run arbitrary "
            "code. Give a safetensors file, a Hugging Face folder or a T5X checkpoint."
        )
    if start[:4] == b"PK\x03\x04":
        raise UserError(
            f"{str(path)!r} is a zip file; for a pytorch_model.bin, give the folder with its "
            f"{CONFIG_FILE}; extract any other archive first."
        )
    if path.suffix == ".safetensors":
        return True
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] < 2**32:
        return True
    if not start or start[0] not in FIRST_BYTES:
        raise UserError(f"{str(path)!r} isn't a checkpoint; expected {_FORMS}.")
    return False
