"""`prompt-tuning convert`: any frozen model that can be loaded, as one safetensors file of ours."""

import math
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser(
        "convert", "Writes a frozen model, from wherever it is, as one safetensors file.", gin=False
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="what INITIAL_CHECKPOINT_PATH takes: a Hugging Face folder or hub name, a T5X "
        "checkpoint, a safetensors file of ours; local or gs://",
    )
    parser.add_argument("output", metavar="OUTPUT", help="the new file, ending in .safetensors")
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
    args = parser.parse(argv)
    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise UserError(f"{args.output} doesn't end in .safetensors; give a name that does.")
    if output.exists():
        raise UserError(f"{args.output} is there already; remove it or give another name.")

    from prompt_tuning.checkpoints.frozen import stored_frozen
    from prompt_tuning.checkpoints.weights import save_parameters
    from prompt_tuning.models.config import get_config

    expected = get_config(args.architecture) if args.architecture else None
    model = stored_frozen(args.source, expected)
    config = save_parameters(
        output, model.parameters, model.config, args.dtype, {"source": args.source}
    )
    count = sum(math.prod(parameter.shape) for parameter in model.parameters.values())
    print(
        f"{output}: {config.name}, {count:,} parameters in {config.param_dtype}, read from "
        f"{model.format} ({args.source})"
    )


if __name__ == "__main__":
    run(main)
