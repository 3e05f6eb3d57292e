"""`prompt-tuning export`: writes a prompt in another format, such as PEFT's or T5X's.

Other methods are exported to PEFT, if PEFT supports the method.
The input may be in any of the formats, so the command also imports prompts:
`prompt-tuning export ADAPTER --format safetensors --output FOLDER`.
"""

from collections.abc import Sequence

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.adapters.prompt_export import export_adapter
from prompt_tuning.cli.parsers import parse


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the path of each file that it wrote."""
    args = parse("export", argv)
    adapter = load_adapter(args.prompt)
    for path in export_adapter(args.output, adapter, form=args.format, base_model=args.base_model):
        print(path)
