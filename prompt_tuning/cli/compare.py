"""`prompt-tuning compare`: similarity of one model's prompts across tasks and seeds.

No model is loaded: the prompt files name their models and tasks.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.analysis.pictures import plot_projection, plot_similarity
from prompt_tuning.analysis.similarity import project, similarity_matrix, within_and_between
from prompt_tuning.analysis.tables import Table, report_folder, write_report
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the similarity of each pair."""
    args = parse("compare", argv)
    if len(args.prompts) < 2:
        raise UserError(f"Nothing to compare {args.prompts[0]} with: give at least two prompts.")

    prompts, metadata = _loaded(args.prompts)
    names, tasks = _names(args.prompts, metadata)
    # Prompts of one task are adjacent.
    order = sorted(range(len(names)), key=lambda i: (tasks[i], i))
    prompts = [prompts[i] for i in order]
    names, tasks = ([items[i] for i in order] for items in (names, tasks))
    matrix = similarity_matrix(prompts, args.measure)
    what = "of their mean vectors" if args.measure == "mean" else "of all pairs of positions"
    table = Table(
        title=f"Cosine similarity {what}.",
        columns=["", *names],
        rows=[[name, *map(float, row)] for name, row in zip(names, matrix, strict=True)],
    )
    within, between = within_and_between(matrix, tasks)
    groups = Table(
        title="Mean similarity of two prompts.",
        columns=["pairs", "similarity"],
        rows=[
            [name, value]
            for name, value in (("of one task", within), ("of two tasks", between))
            if value is not None
        ],
    )
    numbered = Table(
        title="",
        columns=["", *(str(number) for number in range(1, len(names) + 1))],
        rows=[[f"{i} {row[0]}", *row[1:]] for i, row in enumerate(table.rows, start=1)],
    )
    print(f"{table.title}\n\n{numbered.text()}\n\n{groups.title}\n\n{groups.text()}")
    if args.report:
        _report(args.report, {"similarity": table, "groups": groups}, matrix, prompts, names, tasks)


def _loaded(paths: Sequence[str]) -> tuple[list[np.ndarray], list[PromptMetadata]]:
    loaded = [load_prompt(path) for path in paths]
    models = {m.model: path for path, (_, m) in zip(paths, loaded, strict=True) if m.model}
    if len(models) > 1:
        found = ", ".join(f"{path} of '{model}'" for model, path in models.items())
        raise UserError(f"Prompts of different models can't be compared: {found}.")
    return [prompt for prompt, _ in loaded], [metadata for _, metadata in loaded]


def _names(paths: Sequence[str], metadata: Sequence[PromptMetadata]) -> tuple[list[str], list[str]]:
    """Returns the prompts' names, from task and seed if recorded, and their tasks."""
    seeds = ("" if m.seed is None else f", seed {m.seed}" for m in metadata)
    known = [f"{m.task}{seed}" if m.task else "" for m, seed in zip(metadata, seeds, strict=True)]
    count = Counter(known)
    shown = [
        name if name and count[name] == 1 else path.name if path.is_dir() else path.stem
        for name, path in zip(known, map(as_path, paths), strict=True)
    ]
    if len(set(shown)) < len(shown):
        shown = list(paths)
    return shown, [m.task or "unknown" for m in metadata]


def _report(
    folder: str,
    tables: Mapping[str, Table],
    matrix: np.ndarray,
    prompts: Sequence[np.ndarray],
    names: Sequence[str],
    tasks: Sequence[str],
) -> None:
    to = report_folder(folder)
    positions, explained = project(prompts)
    pictures = [
        plot_similarity(to / "similarity.png", names, matrix),
        plot_projection(to / "projection.png", names, tasks, positions, explained),
    ]
    print(f"\n{write_report(to, f'{len(names)} prompts compared', tables, pictures)}")
