"""`prompt-tuning convert`: any frozen model that can be loaded, as a file of ours or a folder."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.model_files import FORMATS, HUGGING_FACE, vocabulary_beside
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.checkpoints.frozen import StoredModel
    from prompt_tuning.models.config import T5Config


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser(
        "convert", "Writes a frozen model, from wherever it is, in another form.", gin=False
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="what INITIAL_CHECKPOINT_PATH takes: a Hugging Face folder or hub name, a T5X "
        "checkpoint, a safetensors file of ours; local or gs://",
    )
    parser.add_argument(
        "output", metavar="OUTPUT", help="a new file, ending in .safetensors, or a folder"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="cast the weights to it (default: as they are saved)",
    )
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="the size it must be of, such as t5_1_1_small; a T5X checkpoint's is otherwise read "
        "off its shapes",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="safetensors (a file of ours, the default), or huggingface: a folder that "
        "transformers loads, with the vocabulary that is beside SOURCE",
    )
    args = parser.parse(argv)
    output = Path(args.output)
    as_folder = args.format == HUGGING_FACE
    if not as_folder and output.suffix != ".safetensors":
        raise UserError(
            f"{args.output} doesn't end in .safetensors; give a name that does, or --format "
            f"{HUGGING_FACE} for a folder."
        )
    if not as_folder and output.exists():
        raise UserError(f"{args.output} is there already; remove it or give another name.")

    from prompt_tuning.checkpoints.frozen import stored_frozen
    from prompt_tuning.checkpoints.weights import save_parameters
    from prompt_tuning.models.config import get_config

    expected = get_config(args.architecture) if args.architecture else None
    model = stored_frozen(args.source, expected)
    if as_folder:
        config = _write_folder(output, model, args.source, args.dtype)
    else:
        config = save_parameters(
            output, model.parameters, model.config, args.dtype, {"source": args.source}
        )
    count = sum(math.prod(parameter.shape) for parameter in model.parameters.values())
    print(
        f"{output}: {config.name}, {count:,} parameters in {config.param_dtype}, read from "
        f"{model.format} ({args.source})"
    )


def _write_folder(output: Path, model: "StoredModel", source: str, dtype: str | None) -> "T5Config":
    from prompt_tuning.checkpoints.huggingface_export import save_huggingface
    from prompt_tuning.checkpoints.stored_arrays import as_dtype, dtype_of
    from prompt_tuning.files import new_folder

    config = dataclasses.replace(model.config, param_dtype=dtype_of(model.parameters, dtype))
    vocabulary = vocabulary_beside(source)
    folder = new_folder(output)
    save_huggingface(
        folder, lambda name: model.parameters[name].read(as_dtype(config.param_dtype)), config
    )
    if vocabulary is None:
        print(
            f"There is no vocabulary beside {source}: put the model's spiece.model into {folder}.",
            file=sys.stderr,
        )
    else:
        vocabulary.save(folder, fix="Give another folder.")
    return config


if __name__ == "__main__":
    run(main)
