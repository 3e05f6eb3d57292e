"""`prompt-tuning export`: writes a prompt in another form, for PEFT, T5X or anyone.

What another method has trained is written for PEFT, where that has the method.
The prompt given may be in any form too, so the same command brings other people's prompts here:
`prompt-tuning export ADAPTER --format safetensors --output FOLDER`.
"""

from collections.abc import Sequence

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the path of each file that it wrote."""
    parser = Parser("export", "Writes a prompt in another form.", gin=False)
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        help="a run folder, a .npy or .safetensors file, a PEFT adapter or a T5X checkpoint",
    )
    parser.add_argument(
        "--format",
        required=True,
        metavar="FORMAT",
        help="peft (an adapter folder), t5x (a checkpoint with the prompt alone, and its NumPy "
        "file), npy (the array alone) or safetensors (with its metadata)",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--base_model",
        metavar="NAME",
        help="for peft: the frozen model's hub name or folder, such as google/t5-base-lm-adapt, by "
        "which PEFT's AutoPeftModel classes load it",
    )
    args = parser.parse(argv)

    from prompt_tuning.checkpoints.adapter_files import load_adapter
    from prompt_tuning.checkpoints.prompt_export import export_adapter

    adapter = load_adapter(args.prompt)
    for path in export_adapter(args.output, adapter, form=args.format, base_model=args.base_model):
        print(path)


if __name__ == "__main__":
    run(main)
