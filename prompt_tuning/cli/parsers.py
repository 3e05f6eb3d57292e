"""The arguments of every command.

Here are neither gin nor JAX, so `--help` and mistyped flags answer at once; the module of a command
is imported to run it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.command_settings import COMMANDS, SETTINGS


def parse(command: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of a command; see `Parser.parse`.

    Raises:
      UserError: an argument is unknown, or a value is missing.
    """
    summary = f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}."
    parser = Parser(command, summary, gin=command in SETTINGS)
    _ARGUMENTS[command](parser)
    return parser.parse(argv)


def _quickstart(parser: Parser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="train again from the start")


def _train(parser: Parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the run in MODEL_DIR and start over",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="STEPS",
        help="record a profile of this many steps (docs/performance.md)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="try the members of TUNE (learning rates, seeds) and drop the worst early",
    )


def _pretrain(parser: Parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the run in MODEL_DIR and start over",
    )


def _sweep(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="the sweep: a gin file that sets sweep.files")
    parser.add_argument(
        "--folder", metavar="FOLDER", help="the sweep's folder (default: runs/NAME)"
    )
    parser.add_argument(
        "--plan", action="store_true", help="list the runs and their cost without training"
    )
    parser.add_argument(
        "--accelerator",
        metavar="NAME",
        help="with --plan: also estimate the hours on this accelerator",
    )
    parser.add_argument(
        "--devices", type=int, help="number of devices, if the accelerator's name has none"
    )
    parser.add_argument("--index", type=int, metavar="I", help="train only run I of the list")
    parser.add_argument("--shard", metavar="I/N", help="train shard I of N of the sweep, from 0")
    parser.add_argument(
        "--retries", type=int, default=2, help="number of retries of a failed part (2)"
    )
    parser.add_argument(
        "--again", action="store_true", help="retry parts that have used all retries"
    )


def _results(parser: Parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the sweep's folder")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="keep only these rows; may be repeated",
    )
    parser.add_argument(
        "--down",
        default="",
        metavar="COLUMNS",
        help="columns with a line for each value, separated by commas",
    )
    parser.add_argument("--across", metavar="COLUMN", help="a column whose values become columns")
    parser.add_argument(
        "--value", default="score", metavar="COLUMN", help="the column to average (score)"
    )


def _report(parser: Parser) -> None:
    parser.add_argument("folder", metavar="RUN_OR_SWEEP", help="the folder of a run or a sweep")
    parser.add_argument(
        "--output", metavar="FILE", help="the file to write (default: report.html in that folder)"
    )
    parser.add_argument("-k", type=int, default=5, help="neighbors per prompt position (5)")
    parser.add_argument(
        "--no_neighbors",
        action="store_true",
        help="leave out the nearest vocabulary pieces, which need the frozen model",
    )


def _plan(parser: Parser) -> None:
    parser.add_argument(
        "--accelerator",
        required=True,
        metavar="NAME",
        help="an accelerator or a TPU slice: h200, a100-40gb, v5e-16",
    )
    parser.add_argument(
        "--devices", type=int, help="number of devices, if the name has none (default: 1)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the plan to a new file")
    parser.add_argument(
        "--no_advice",
        action="store_true",
        help="if it doesn't fit, don't search for changes that do",
    )


def _evaluate(parser: Parser) -> None:
    parser.add_prompt_arguments(optional=True)
    parser.add_argument("--split", help="the split to evaluate on (default: predict.split)")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write the predictions, one JSON row per line"
    )


def _ensemble(parser: Parser) -> None:
    parser.add_argument(
        "prompts",
        nargs="+",
        metavar="RUN_OR_PROMPT",
        help="run folders, for their best prompts, or prompts in any form",
    )
    parser.add_argument("--split", help="the split to evaluate on (default: predict.split)")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="write the majority's predictions, one JSON row per line",
    )


def _design(parser: Parser) -> None:
    parser.add_design_arguments()
    parser.add_argument("--split", help="the split to evaluate on (default: predict.split)")


def _search(parser: Parser) -> None:
    parser.add_design_arguments()
    parser.add_argument(
        "--score_on", metavar="SPLIT", help="also score the best design on this split, such as test"
    )


def _infer(parser: Parser) -> None:
    parser.add_prompt_arguments(optional=True)
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="NAME=FILE",
        help="prompts of one model, by the names used in the input: "
        '{"prompt": NAME, "inputs": TEXT}, with "labels": [...] to replace the task\'s labels',
    )
    parser.add_argument(
        "--input",
        default="-",
        metavar="FILE",
        help="a CSV, TSV, jsonl or Parquet file with the task's columns, or lines of text; -: "
        "lines from standard input",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="read every line as text, even one that begins with a brace",
    )
    parser.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="the output file; -: standard output (default)",
    )


def _serve(parser: Parser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="a folder of prompts NAME.safetensors or NAME.npy"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1: only this machine)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port; 0: any free port (8000)")
    parser.add_argument(
        "--max_wait", type=float, default=5, metavar="MS", help="time to wait for a full batch (5)"
    )
    parser.add_argument(
        "--max_queue", type=int, default=1024, metavar="N", help="maximum queued examples (1024)"
    )
    parser.add_argument(
        "--max_examples",
        type=int,
        default=256,
        metavar="N",
        help="maximum examples per request (256)",
    )
    parser.add_argument(
        "--max_body",
        type=int,
        default=1_000_000,
        metavar="BYTES",
        help="maximum size of a request (1 MB)",
    )
    parser.add_argument(
        "--warm_up",
        type=int,
        default=32,
        metavar="TOKENS",
        help="compile for inputs of up to this many tokens before listening; 0: don't (32)",
    )


def _methods(parser: Parser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="an architecture, such as t5_1_1_xl, or any model, such as tinyworld_small or the "
        "path of a checkpoint; may be repeated (default: t5_1_1_small and xxl)",
    )
    parser.add_argument("--all_sizes", action="store_true", help="all sizes of T5 1.1")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--json", action="store_true", help="print a list of facts by model, as JSON")


def _show(parser: Parser) -> None:
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help="a task or mixture (default: that of the gin files)"
    )
    parser.add_argument("-n", type=int, default=3, help="number of examples (default: 3)")
    parser.add_argument("--split", help="the split (default: train if there is one)")


def _submit(parser: Parser) -> None:
    parser.add_argument("benchmark", choices=("superglue", "glue"), help="the leaderboard")
    parser.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        metavar="FILE",
        help="files from `evaluate --split test --predictions FILE`",
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help="run folders to predict the test sets with",
    )
    parser.add_argument("--output", metavar="ZIP", help="the zip to write")
    parser.add_argument("--check", metavar="ZIP", help="check a zip instead of writing one")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="allow missing tasks; leaderboards don't accept such a zip",
    )


def _neighbors(parser: Parser) -> None:
    parser.add_prompt_arguments()
    parser.add_argument("-k", type=int, default=5, help="pieces per position (default: 5)")
    parser.add_argument(
        "--metric", default="cosine", help="cosine (the default, as in the paper) or euclidean"
    )
    parser.add_argument(
        "--words",
        action="store_true",
        help="only text: no word-start markers, control pieces, punctuation or duplicates",
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write tables (CSV, Markdown) and figures to this folder: neighbors, their tightness, "
        "class labels, repeats, norms",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="with --report: the attention on the prompt by layer, on predict.split",
    )
    parser.add_argument(
        "--removals",
        action="store_true",
        help="with --report: the score on predict.split without each position and as positions are "
        "removed; takes two evaluations per position",
    )


def _compare(parser: Parser) -> None:
    parser.add_argument(
        "prompts",
        nargs="+",
        metavar="RUN_OR_PROMPT",
        help="run folders, for their best prompts, or prompts in any form",
    )
    parser.add_argument(
        "--measure",
        default="mean",
        help="cosine of the mean vectors (mean, the default), or the mean cosine of all pairs of "
        "positions (positions)",
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write tables (CSV, Markdown) and figures (heat map, projection) to this folder",
    )


def _convert(parser: Parser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="what INITIAL_CHECKPOINT_PATH takes: a Hugging Face folder or hub name, a T5X "
        "checkpoint, a safetensors file of ours; local or gs://",
    )
    parser.add_argument("output", metavar="OUTPUT", help="a new .safetensors file, or a new folder")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="cast the weights to this dtype (default: as saved)",
    )
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="the size it must be of, such as t5_1_1_small; a T5X checkpoint's is otherwise read "
        "off its shapes",
    )
    parser.add_argument(
        "--format",
        choices=("safetensors", "huggingface"),
        default="safetensors",
        help="safetensors (a file of ours, the default), or huggingface: a folder that "
        "transformers loads, with the vocabulary that is beside SOURCE",
    )


def _merge(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder; its best adapter is merged")
    parser.add_argument(
        "--adapter",
        metavar="FILE",
        help="an adapter file or a PEFT adapter, instead of the run's best",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--format",
        choices=("safetensors", "huggingface"),
        default="safetensors",
        help="safetensors (ours, the default), or huggingface: a folder that transformers loads",
    )


def _export(parser: Parser) -> None:
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


def _tasks(parser: Parser) -> None:
    parser.epilog = "For your own files, see --gin_file=tasks/user_files.gin and docs/data.md."


_ARGUMENTS: Mapping[str, Callable[[Parser], None]] = {
    "quickstart": _quickstart,
    "train": _train,
    "pretrain": _pretrain,
    "sweep": _sweep,
    "results": _results,
    "report": _report,
    "plan": _plan,
    "evaluate": _evaluate,
    "ensemble": _ensemble,
    "design": _design,
    "search": _search,
    "infer": _infer,
    "serve": _serve,
    "methods": _methods,
    "show": _show,
    "submit": _submit,
    "neighbors": _neighbors,
    "compare": _compare,
    "convert": _convert,
    "merge": _merge,
    "export": _export,
    "tasks": _tasks,
}
