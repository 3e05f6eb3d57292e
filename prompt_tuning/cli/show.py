"""`prompt-tuning show`: prints a task's examples as the model sees them, text and ids.

The encoder reads the prompt's positions, which are trained vectors instead of tokens, and then the
tokens of the input. No model is loaded: only the data, the vocabulary and the prompt's length are
used.
"""

import itertools
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from prompt_tuning.cli import configurables, gin_config
from prompt_tuning.cli.parsers import parse
from prompt_tuning.data.feature_lengths import feature_lengths
from prompt_tuning.data.shortening import fit_inputs
from prompt_tuning.data.tasks.task import Example
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError, at_least
from prompt_tuning.recipes.say import say

DEFAULTS = "runs/show.gin"
_NARROWEST = 80
_INDENT = 8


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the first examples of a split of each task."""
    args = parse("show", argv)
    at_least(1, {"-n": args.n})
    bindings = list(args.gin_bindings)
    if args.task:
        bindings.append(("MIXTURE_OR_TASK_NAME", repr(args.task)))
    gin_config.load([DEFAULTS, *args.gin_file], bindings, args.gin_search_paths)
    data = configurables.data()
    vocabulary = configurables.vocabulary()
    prompt_length = gin_config.macro("PROMPT_LENGTH")
    if gin_config.macro("VOCABULARY_PATH") == "tinyworld" and "tinyworld" not in data.name:
        say(
            "The ids are from the small shipped vocabulary; set --gin.VOCABULARY_PATH=... to use "
            "your model's."
        )
    lengths = feature_lengths(gin_config.macro("TASK_FEATURE_LENGTHS"), data.lengths)
    width = max(shutil.get_terminal_size().columns, _NARROWEST)
    for task in data.tasks:
        split = args.split or ("train" if "train" in task.splits else task.splits[0])
        fitted = fit_inputs(task, vocabulary, lengths["inputs"])
        examples = list(itertools.islice(fitted.examples(split, data.data_dir), args.n))
        if not examples:
            raise UserError(f"The {split} split of {task.name} has no examples.")
        for number, example in enumerate(examples):
            print(f"{task.name}, {split}, example {number}")
            print("\n".join(example_lines(example, vocabulary, lengths, prompt_length, width)))
            print()


def example_lines(
    example: Example,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int],
    prompt_length: int,
    width: int,
) -> Iterator[str]:
    """Yields the lines that show one example.

    Args:
      example: the example's texts.
      vocabulary: the frozen model's vocabulary.
      lengths: maximum "inputs" and "targets" in tokens, including end of sequence; longer ones are
        truncated.
      prompt_length: number of virtual tokens before the input.
      width: of a line, in characters.
    """
    yield ""
    for name, text in (("inputs", example.inputs), ("targets", example.targets)):
        indent = " " * (_INDENT + 2)
        yield from textwrap.wrap(
            " ".join(text.split()),
            width,
            initial_indent=f"  {name:{_INDENT}}",
            subsequent_indent=indent,
        )
    inputs, _ = vocabulary.encode_inputs(example.inputs, lengths["inputs"])
    cut = _cut(len(inputs), len(vocabulary.encode_inputs(example.inputs)[0]))
    yield ""
    yield (
        f"  the encoder reads {prompt_length + len(inputs)} positions: {prompt_length} of the "
        f"prompt, {len(inputs)} tokens{cut}"
    )
    yield from _grid(_prompt_cells(prompt_length), 0, width)
    yield from _grid(_cells(inputs, vocabulary), prompt_length, width)
    ids = [*vocabulary.encode(example.targets), vocabulary.eos_id]
    targets = ids if len(ids) <= lengths["targets"] else [*ids[: lengths["targets"] - 1], ids[-1]]
    cut = _cut(len(targets), len(ids))
    yield f"  the decoder is trained on {len(targets)} tokens{cut}"
    yield from _grid(_cells(targets, vocabulary), 0, width)


Cell = tuple[str, str]
"""A piece and its id."""


def _cut(length: int, full: int) -> str:
    return f" (cut from {full})" if length < full else ""


def _cells(ids: Sequence[int], vocabulary: Vocabulary) -> list[Cell]:
    return [(vocabulary.piece(id_), str(id_)) for id_ in ids]


def _prompt_cells(length: int) -> list[Cell]:
    """Returns the prompt's positions, abbreviating the middle of a long prompt."""
    positions = range(length)
    shown = [*positions] if length <= 6 else [*positions[:3], None, *positions[-2:]]
    return [("...", "") if p is None else (f"[P{p}]", "prompt") for p in shown]


def _grid(cells: Sequence[Cell], first: int, width: int) -> Iterator[str]:
    """Yields pairs of lines, pieces above their ids, wrapped at `width`.

    Each pair starts with the position of its first cell.
    """
    line: list[Cell] = []
    position = first
    for cell in [*cells, None]:
        room = width - _INDENT - sum(max(map(len, c)) + 1 for c in line)
        if cell is not None and (not line or max(map(len, cell)) <= room):
            line.append(cell)
            continue
        widths = [max(map(len, c)) for c in line]
        for start, row in zip((str(position), ""), zip(*line, strict=True), strict=True):
            padded = (f"{text:{w}}" for text, w in zip(row, widths, strict=True))
            yield f"{start:>{_INDENT - 2}}  {' '.join(padded)}".rstrip()
        position += len(line)
        line = [] if cell is None else [cell]
