"""The arguments of every command.

This module imports neither gin nor JAX, so `--help` and error messages are instant; a command's
module is imported only to run it.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.command_settings import COMMANDS, SETTINGS

Argument = tuple[str, Mapping[str, Any]]
"""A flag or the name of a positional argument, with keyword arguments of `add_argument`."""


def _arg(
    name: str, metavar: str | None, help: str, default: Any = None, **options: Any
) -> Argument:
    """Returns an argument; its type is that of a numeric default."""
    if isinstance(default, int | float):
        options["type"] = type(default)
    return name, {"metavar": metavar, "help": help, "default": default, **options}


def _flag(name: str, help: str) -> Argument:
    return name, {"action": "store_true", "help": help}


_OVERWRITE = _flag("--overwrite", "delete the run in MODEL_DIR and start over")
_SPLIT = _arg("--split", None, "the split to evaluate on (default: predict.split)")
_FORMATS = ("safetensors", "huggingface")
_PROMPT = (
    _arg("run", "RUN", "a run folder, for its configuration and its best prompt", nargs="?"),
    _arg("--prompt", "FILE", "a prompt in any form (docs/adapters.md), instead of the run's best"),
)
_PROMPT_OR_NONE = (
    _flag("--no_prompt", "use the model without a prompt, such as a merged or fully tuned one"),
    *_PROMPT,
)
_DESIGN = (
    _arg(
        "--shots",
        "K",
        "number of solved training examples before the question (default: 0)",
        nargs="+",
        type=int,
        default=[0],
    ),
    _arg("--seed", None, "seed for sampling them (default: 0)", default=0),
    _arg("--templates", "FILE", "a TOML file of designs (default: the shipped one for the task)"),
    _arg("--design", "NAME", "only these designs of the file", nargs="+"),
    _flag("--generate", "generate answers with predict.method instead of ranking labels"),
)

ARGUMENTS: Mapping[str, Sequence[Argument]] = {
    "quickstart": (_flag("--overwrite", "train again from the start"),),
    "train": (
        _OVERWRITE,
        _arg(
            "--profile",
            "STEPS",
            "record a profile of this many steps (docs/performance.md)",
            default=0,
        ),
        _flag("--tune", "try the members of TUNE (learning rates, seeds) and drop the worst early"),
    ),
    "pretrain": (_OVERWRITE,),
    "sweep": (
        _arg("file", "FILE", "the sweep: a gin file that sets sweep.files"),
        _arg("--folder", "FOLDER", "the sweep's folder (default: runs/NAME)"),
        _flag("--plan", "list the runs and their cost without training"),
        _arg("--accelerator", "NAME", "with --plan: also estimate the hours on this accelerator"),
        _arg("--devices", None, "number of devices, if the accelerator's name has none", type=int),
        _arg("--index", "I", "train only run I of the list", type=int),
        _arg("--shard", "I/N", "train shard I of N of the sweep, from 0"),
        _arg("--retries", None, "number of retries of a failed part (2)", default=2),
        _flag("--again", "retry parts that have used all retries"),
        _arg("--done", "TABLE", "leave out the runs in this results.parquet"),
    ),
    "results": (
        _arg("folder", "FOLDER", "the sweep's folder"),
        _arg(
            "--where",
            "COLUMN=VALUE",
            "keep only these rows; may be repeated",
            action="append",
            default=[],
        ),
        _arg(
            "--down",
            "COLUMNS",
            "columns with a line for each value, separated by commas",
            default="",
        ),
        _arg("--across", "COLUMN", "a column whose values become columns"),
        _arg("--value", "COLUMN", "the column to average (score)", default="score"),
    ),
    "report": (
        _arg("folder", "RUN_OR_SWEEP", "the folder of a run or a sweep"),
        _arg("--output", "FILE", "the file to write (default: report.html in that folder)"),
        _arg("-k", None, "neighbors per prompt position (5)", default=5),
        _flag(
            "--no_neighbors", "leave out the nearest vocabulary pieces, which need the frozen model"
        ),
    ),
    "plan": (
        _arg(
            "--accelerator",
            "NAME",
            "an accelerator or a TPU slice: h200, a100-40gb, v5e-16",
            required=True,
        ),
        _arg("--devices", None, "number of devices, if the name has none (default: 1)", type=int),
        _arg("--json", "FILE", "also write the plan to a new file"),
        _flag("--no_advice", "if it doesn't fit, don't search for changes that do"),
    ),
    "evaluate": (
        *_PROMPT_OR_NONE,
        _SPLIT,
        _arg("--predictions", "FILE", "write the predictions, one JSON row per line"),
    ),
    "ensemble": (
        _arg(
            "prompts",
            "RUN_OR_PROMPT",
            "run folders, for their best prompts, or prompts in any form",
            nargs="+",
        ),
        _SPLIT,
        _arg("--predictions", "FILE", "write the majority's predictions, one JSON row per line"),
    ),
    "design": (*_DESIGN, _SPLIT),
    "search": (
        *_DESIGN,
        _arg("--score_on", "SPLIT", "also score the best design on this split, such as test"),
    ),
    "infer": (
        *_PROMPT_OR_NONE,
        _arg(
            "--prompts",
            "NAME=FILE",
            'prompts of one model, by the names used in the input: {"prompt": NAME, "inputs": '
            'TEXT}, with "labels": [...] to replace the task\'s labels',
            nargs="+",
        ),
        _arg(
            "--input",
            "FILE",
            "a CSV, TSV, jsonl or Parquet file with the task's columns, or lines of text; -: "
            "lines from standard input",
            default="-",
        ),
        _flag("--text", "read every line as text, even one that begins with a brace"),
        _arg("--output", "FILE", "the output file; -: standard output (default)", default="-"),
    ),
    "serve": (
        _arg("folder", "FOLDER", "a folder of prompts NAME.safetensors or NAME.npy"),
        _arg(
            "--host",
            None,
            "address to listen on (127.0.0.1: only this machine)",
            default="127.0.0.1",
        ),
        _arg("--port", None, "port; 0: any free port (8000)", default=8000),
        _arg("--max_wait", "MS", "time to wait for a full batch (5)", default=5.0),
        _arg("--max_queue", "N", "maximum queued examples (1024)", default=1024),
        _arg("--max_examples", "N", "maximum examples per request (256)", default=256),
        _arg("--max_body", "BYTES", "maximum size of a request (1 MB)", default=1_000_000),
        _arg(
            "--warm_up",
            "TOKENS",
            "compile for inputs of up to this many tokens before listening; 0: don't (32)",
            default=32,
        ),
    ),
    "methods": (
        _arg(
            "--model",
            "NAME",
            "an architecture, such as t5_1_1_xl, or any model, such as tinyworld_small or the "
            "path of a checkpoint; may be repeated (default: t5_1_1_small and xxl)",
            action="append",
            default=[],
        ),
        _flag("--all_sizes", "all sizes of T5 1.1"),
        _flag("--markdown", "print a Markdown table"),
        _flag("--json", "print a list of facts by model, as JSON"),
    ),
    "show": (
        _arg("task", "TASK", "a task or mixture (default: that of the gin files)", nargs="?"),
        _arg("-n", None, "number of examples (default: 3)", default=3),
        _arg("--split", None, "the split (default: train if it exists)"),
    ),
    "submit": (
        _arg("benchmark", None, "the leaderboard", choices=("superglue", "glue")),
        _arg(
            "--predictions",
            "FILE",
            "files from `evaluate --split test --predictions FILE`",
            nargs="+",
            default=[],
        ),
        _arg("--runs", "RUN", "run folders to predict the test sets with", nargs="+", default=[]),
        _arg("--output", "ZIP", "the zip to write"),
        _arg("--check", "ZIP", "check a zip instead of writing one"),
        _flag("--partial", "allow missing tasks; leaderboards don't accept such a zip"),
    ),
    "neighbors": (
        *_PROMPT,
        _arg("-k", None, "pieces per position (default: 5)", default=5),
        _arg(
            "--metric", None, "cosine (the default, as in the paper) or euclidean", default="cosine"
        ),
        _flag(
            "--words", "only text: no word-start markers, control pieces, punctuation or duplicates"
        ),
        _arg(
            "--report",
            "FOLDER",
            "write tables (CSV, Markdown) and figures to this folder: neighbors, their tightness, "
            "class labels, repeats, norms",
        ),
        _flag(
            "--attention", "with --report: the attention on the prompt by layer, on predict.split"
        ),
        _flag(
            "--removals",
            "with --report: the score on predict.split without each position and as positions are "
            "removed; takes two evaluations per position",
        ),
    ),
    "compare": (
        _arg(
            "prompts",
            "RUN_OR_PROMPT",
            "run folders, for their best prompts, or prompts in any form",
            nargs="+",
        ),
        _arg(
            "--measure",
            None,
            "cosine of the mean vectors (mean, the default), or the mean cosine of all pairs of "
            "positions (positions)",
            default="mean",
        ),
        _arg(
            "--report",
            "FOLDER",
            "write tables (CSV, Markdown) and figures (heat map, projection) to this folder",
        ),
    ),
    "convert": (
        _arg(
            "source",
            "SOURCE",
            "any value of INITIAL_CHECKPOINT_PATH: a Hugging Face folder or hub name, a T5X "
            "checkpoint, a safetensors file of this package; local or gs://",
        ),
        _arg("output", "OUTPUT", "a new .safetensors file, or a new folder"),
        _arg(
            "--dtype",
            None,
            "cast the weights to this dtype (default: as saved)",
            choices=("float32", "bfloat16"),
        ),
        _arg(
            "--architecture",
            "NAME",
            "the expected size, such as t5_1_1_small; otherwise a T5X checkpoint's is inferred "
            "from its shapes",
        ),
        _arg(
            "--format",
            None,
            "safetensors (this package's format, the default), or huggingface: a folder that "
            "transformers loads, with the vocabulary next to SOURCE",
            choices=_FORMATS,
            default="safetensors",
        ),
    ),
    "merge": (
        _arg("run", "RUN", "a run folder; its best adapter is merged"),
        _arg("--adapter", "FILE", "an adapter file or a PEFT adapter, instead of the run's best"),
        _arg("--output", "FOLDER", "a new folder", required=True),
        _arg(
            "--format",
            None,
            "safetensors (this package's format, the default), or huggingface: a folder that "
            "transformers loads",
            choices=_FORMATS,
            default="safetensors",
        ),
    ),
    "export": (
        _arg(
            "prompt",
            "PROMPT",
            "a run folder, a .npy or .safetensors file, a PEFT adapter or a T5X checkpoint",
        ),
        _arg(
            "--format",
            "FORMAT",
            "peft (an adapter folder), t5x (a checkpoint with only the prompt, and its NumPy "
            "file), npy (only the array) or safetensors (with its metadata)",
            required=True,
        ),
        _arg("--output", "FOLDER", "a new folder", required=True),
        _arg(
            "--base_model",
            "NAME",
            "for peft: the frozen model's hub name or folder, such as google/t5-base-lm-adapt, "
            "with which PEFT's AutoPeftModel classes load it",
        ),
    ),
    "publish": (
        _arg("run", "RUN", "a run folder"),
        _arg("repository", "OWNER/NAME", "the repository on the Hugging Face hub", nargs="?"),
        _arg(
            "--output", "FOLDER", "a new folder to write the files to; alone, nothing is uploaded"
        ),
        _arg(
            "--base_model",
            "NAME",
            "the frozen model's hub name, such as google/t5-base-lm-adapt, which the card names",
        ),
        _arg("--license", "ID", "the license, by the hub's identifier, such as apache-2.0"),
        _flag("--private", "create a private repository"),
    ),
    "tasks": (),
}
_TASKS_EPILOG = "For your own files, see --gin_file=tasks/user_files.gin and docs/data.md."


def parse(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of a command; see `Parser.parse`.

    Raises:
      UserError: an argument is unknown, or a value is missing.
    """
    summary = f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}."
    parser = Parser(command, summary, gin=command in SETTINGS)
    for name, options in ARGUMENTS[command]:
        parser.add_argument(name, **options)
    if command == "tasks":
        parser.epilog = _TASKS_EPILOG
    return parser.parse(argv)
