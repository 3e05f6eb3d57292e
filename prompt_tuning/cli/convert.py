"""`prompt-tuning convert`: writes a frozen model as a file or folder of another format."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.checkpoints.arrays.stored_arrays import as_dtype, dtype_of
from prompt_tuning.checkpoints.frozen.huggingface_export import save_huggingface
from prompt_tuning.checkpoints.frozen.load import StoredModel, stored_frozen
from prompt_tuning.checkpoints.frozen.weights import save_parameters
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError
from prompt_tuning.files import new_folder
from prompt_tuning.models.config import get_config
from prompt_tuning.recipes.model_files import HUGGING_FACE, vocabulary_beside


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("convert", argv)
    output = Path(args.output)
    as_folder = args.format == HUGGING_FACE
    if not as_folder and output.suffix != ".safetensors":
        raise UserError(
            f"{args.output} doesn't end in .safetensors; give a name that does, or --format "
            f"{HUGGING_FACE} for a folder."
        )
    if not as_folder and output.exists():
        raise UserError(f"{args.output} already exists; remove it or give another name.")

    expected = get_config(args.architecture) if args.architecture else None
    model = stored_frozen(args.source, expected)
    if as_folder:
        dtype = _write_folder(output, model, args.source, args.dtype)
    else:
        dtype = save_parameters(
            output, model.parameters, model.config, args.dtype, {"source": args.source}
        )
    count = sum(math.prod(parameter.shape) for parameter in model.parameters.values())
    print(
        f"{output}: {model.config.name}, {count:,} parameters in {dtype}, read from "
        f"{model.format} ({args.source})"
    )


def _write_folder(output: Path, model: StoredModel, source: str, dtype: str | None) -> str:
    dtype = dtype_of(model.parameters, dtype)
    vocabulary = vocabulary_beside(source)
    folder = new_folder(output)
    save_huggingface(
        folder,
        lambda name: model.parameters[name].read(as_dtype(dtype)),
        model.config,
        dtype,
    )
    if vocabulary is None:
        print(
            f"There is no vocabulary next to {source}: copy the model's spiece.model into "
            f"{folder}.",
            file=sys.stderr,
        )
    else:
        vocabulary.save(folder, fix="Give another folder.")
    return dtype
