"""Finding a frozen model: whatever a path holds, or a model that the package ships.

Formats are read by weights.py (ours), huggingface.py and t5x.py.
"""

from importlib import resources
from pathlib import Path

from prompt_tuning.checkpoints.huggingface import CONFIG_FILE, load_huggingface
from prompt_tuning.checkpoints.t5x import INDEX_FILE, load_t5x
from prompt_tuning.checkpoints.weights import load_weights
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params

_SUFFIX = ".safetensors"


def shipped_models() -> dict[str, Path]:
    """Returns the files of the models inside the package by their names, the files' stems."""
    folder = Path(str(resources.files("prompt_tuning") / "assets" / "tinyworld"))
    return {file.stem: file for file in sorted(folder.glob(f"*{_SUFFIX}"))}


def load_frozen(
    path_or_name: str | Path, config: T5Config | None = None, dtype: str | None = None
) -> tuple[T5Config, Params]:
    """Returns the config and the weights of a frozen model.

    Args:
      path_or_name: a shipped model's name, or the path of our safetensors file, of a Hugging Face
        folder, or of a T5X checkpoint (folder or single file).
      config: the shape of a T5X checkpoint, whose files don't tell all of it; the other formats
        carry their own.
      dtype: "float32" or "bfloat16" to cast the weights; as they were saved if None.

    Raises:
      UserError: it is none of these, or a damaged one.
    """
    shipped = shipped_models()
    if str(path_or_name) in shipped:
        return load_weights(shipped[str(path_or_name)], dtype)[:2]
    path = Path(path_or_name)
    if path.is_file():
        if path.suffix == _SUFFIX:
            return load_weights(path, dtype)[:2]
        return load_t5x(path, config, dtype)
    if (path / CONFIG_FILE).is_file():
        return load_huggingface(path, dtype)
    if (path / INDEX_FILE).is_file():
        return load_t5x(path, config, dtype)
    found = "a folder with neither" if path.is_dir() else "neither a file nor a folder"
    raise UserError(
        f"{str(path)!r} isn't a checkpoint: it is {found} "
        + (f"{CONFIG_FILE} nor {INDEX_FILE} in it" if path.is_dir() else "nor a shipped model")
        + f" (those are {', '.join(shipped) or 'none'}).{did_you_mean(str(path_or_name), shipped)}"
    )
