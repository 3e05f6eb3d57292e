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
        help="remove the run that MODEL_DIR holds and start over",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="STEPS",
        help="record what the devices do in this many steps (docs/performance.md)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="try the members of TUNE (learning rates, seeds), dropping the worst on the way",
    )


def _pretrain(parser: Parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the run that MODEL_DIR holds and start over",
    )


def _sweep(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="the sweep: a gin file that sets sweep.files")
    parser.add_argument("--folder", metavar="FOLDER", help="where it all goes (default: runs/NAME)")
    parser.add_argument(
        "--plan", action="store_true", help="list the runs and what they take, and train nothing"
    )
    parser.add_argument(
        "--accelerator",
        metavar="NAME",
        help="with --plan: also the hours on it, as prompt-tuning plan estimates them",
    )
    parser.add_argument(
        "--devices", type=int, help="of the accelerator, where its name has no number"
    )
    parser.add_argument("--index", type=int, metavar="I", help="train the run I of the list alone")
    parser.add_argument(
        "--shard", metavar="I/N", help="train the I-th of N shares of the sweep, I from 0"
    )
    parser.add_argument(
        "--retries", type=int, default=2, help="how often a failed part is tried again (2)"
    )
    parser.add_argument("--again", action="store_true", help="try again what has failed for good")


def _results(parser: Parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the sweep's folder")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="keep these rows alone; may be repeated",
    )
    parser.add_argument(
        "--down", default="", metavar="COLUMNS", help="a line for each value; separated by commas"
    )
    parser.add_argument("--across", metavar="COLUMN", help="a column for each value")
    parser.add_argument(
        "--value", default="score", metavar="COLUMN", help="what is averaged (score)"
    )


def _report(parser: Parser) -> None:
    parser.add_argument("folder", metavar="RUN_OR_SWEEP", help="a run folder, or a sweep's")
    parser.add_argument(
        "--output", metavar="FILE", help="where to (default: report.html in that folder)"
    )
    parser.add_argument("-k", type=int, default=5, help="neighbors of a prompt position (5)")
    parser.add_argument(
        "--no_neighbors",
        action="store_true",
        help="don't load the frozen model to show what the prompt resembles",
    )


def _plan(parser: Parser) -> None:
    parser.add_argument(
        "--accelerator",
        required=True,
        metavar="NAME",
        help="an accelerator or a TPU slice: h200, a100-40gb, v5e-16",
    )
    parser.add_argument(
        "--devices", type=int, help="how many devices, where the name doesn't say (default: 1)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the plan to a new file")
    parser.add_argument(
        "--no_advice",
        action="store_true",
        help="if it doesn't fit, don't look for what would (each try is compiled)",
    )


def _evaluate(parser: Parser) -> None:
    parser.add_prompt_arguments(optional=True)
    parser.add_argument("--split", help="the split to score (default: predict.split)")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write what was predicted, one JSON row per line"
    )


def _ensemble(parser: Parser) -> None:
    parser.add_argument(
        "prompts",
        nargs="+",
        metavar="RUN_OR_PROMPT",
        help="run folders, whose best prompts are taken, or prompts in any form",
    )
    parser.add_argument("--split", help="the split to score (default: predict.split)")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        help="write what the majority answered, one JSON row per line",
    )


def _design(parser: Parser) -> None:
    parser.add_design_arguments()
    parser.add_argument("--split", help="the split to score (default: predict.split)")


def _search(parser: Parser) -> None:
    parser.add_design_arguments()
    parser.add_argument(
        "--score_on", metavar="SPLIT", help="score the best on another split too, such as test"
    )


def _infer(parser: Parser) -> None:
    parser.add_prompt_arguments(optional=True)
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="NAME=FILE",
        help="prompts of one model, by the names that the input gives them: "
        '{"prompt": NAME, "inputs": TEXT}, with "labels": [...] to rank others than its task has',
    )
    parser.add_argument(
        "--input",
        default="-",
        metavar="FILE",
        help="a CSV, TSV, jsonl or Parquet file with the task's columns, or lines of text; - is "
        "standard input, by lines",
    )
    parser.add_argument(
        "--text",
        action="store_true",
        help="take every line as text, also one that begins with a brace",
    )
    parser.add_argument("--output", default="-", metavar="FILE", help="- is standard output")


def _serve(parser: Parser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", help="NAME.safetensors or NAME.npy in it is the prompt NAME"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    parser.add_argument(
        "--max_wait", type=float, default=5, metavar="MS", help="an example waits for others (5)"
    )
    parser.add_argument(
        "--max_queue", type=int, default=1024, metavar="N", help="examples that may wait (1024)"
    )
    parser.add_argument(
        "--max_examples", type=int, default=256, metavar="N", help="examples of a request (256)"
    )
    parser.add_argument(
        "--max_body", type=int, default=1_000_000, metavar="BYTES", help="size of a request (1 MB)"
    )
    parser.add_argument(
        "--warm_up",
        type=int,
        default=32,
        metavar="TOKENS",
        help="compile for inputs of up to so many tokens before the first question; 0: don't (32)",
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
    parser.add_argument("--all_sizes", action="store_true", help="T5 1.1 Small to XXL")
    parser.add_argument("--markdown", action="store_true", help="print it as Markdown")


def _show(parser: Parser) -> None:
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help="a task or mixture (default: the gin files')"
    )
    parser.add_argument("-n", type=int, default=3, help="how many examples (default: 3)")
    parser.add_argument("--split", help="the split (default: train where there is one)")


def _submit(parser: Parser) -> None:
    parser.add_argument("benchmark", choices=("superglue", "glue"), help="the leaderboard")
    parser.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        metavar="FILE",
        help="what `evaluate --split test --predictions FILE` wrote",
    )
    parser.add_argument(
        "--runs", nargs="+", default=[], metavar="RUN", help="run folders that answer the test sets"
    )
    parser.add_argument("--output", metavar="ZIP", help="the zip to write")
    parser.add_argument("--check", metavar="ZIP", help="check a zip instead of writing one")
    parser.add_argument(
        "--partial", action="store_true", help="some tasks only, which the leaderboard won't take"
    )


def _neighbors(parser: Parser) -> None:
    parser.add_prompt_arguments()
    parser.add_argument("-k", type=int, default=5, help="pieces a position (default: 5)")
    parser.add_argument(
        "--metric", default="cosine", help="cosine (the paper's, the default) or euclidean"
    )
    parser.add_argument(
        "--words",
        action="store_true",
        help="text only: no marks of word starts, control pieces or punctuation, each text once",
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write tables (CSV, Markdown) and pictures there: neighbors, how tight they are, "
        "class labels among them, repeats, norms",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="in the report, the attention on the prompt by layer, over predict.split",
    )
    parser.add_argument(
        "--removals",
        action="store_true",
        help="in the report, the score on predict.split as positions are removed: twice as many "
        "evaluations as the prompt has positions",
    )


def _compare(parser: Parser) -> None:
    parser.add_argument(
        "prompts",
        nargs="+",
        metavar="RUN_OR_PROMPT",
        help="run folders, whose best prompts are taken, or prompts in any form",
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
        help="write tables (CSV, Markdown) and pictures (heat map, projection) there",
    )


def _convert(parser: Parser) -> None:
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
        choices=("safetensors", "huggingface"),
        default="safetensors",
        help="safetensors (a file of ours, the default), or huggingface: a folder that "
        "transformers loads, with the vocabulary that is beside SOURCE",
    )


def _merge(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder; its best is merged")
    parser.add_argument(
        "--adapter", metavar="FILE", help="another file, or a PEFT adapter, in place of its best"
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
    parser.epilog = (
        "Your own files need none of them: see --gin_file=tasks/user_files.gin and docs/data.md."
    )


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
