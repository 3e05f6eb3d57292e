"""SQuAD 1.1 (Rajpurkar et al., 2016) and MRQA 2019's out-of-domain sets (Fisch et al., 2019).

The paper's domain shift experiment (Lester et al., 2021, section 5): a prompt is trained on SQuAD,
selected on SQuAD's development set, and scored zero-shot on six sets of other domains:

    prompt-tuning train --gin_file=tasks/squad.gin --gin.MODEL_DIR=runs/squad ...
    prompt-tuning evaluate runs/squad --gin_file=tasks/mrqa.gin

Both come from TFDS, or from a folder of the official files: SQuAD's json and MRQA's jsonl.gz. As in
T5, punctuation is surrounded by spaces in questions, contexts, answers and the scored answers.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import Row, question_text, spaced_punctuation
from prompt_tuning.data.sources import JsonlSource, JsonSource, Source
from prompt_tuning.data.tasks.tables import existing_folder, first_file, is_tfds, tfds_source
from prompt_tuning.data.tasks.task import Example, Task, register_task

_SQUAD_FILES = {"train": "train-v1.1.json", "validation": "dev-v1.1.json"}


# Official file of each TFDS config: as downloaded, and as saved by the organizers' script.
_MRQA = {
    "textbook_qa": ("TextbookQA.jsonl.gz",),
    "bio_asq": ("BioASQ.jsonl.gz",),
    "race": ("RACE.jsonl.gz",),
    "relation_extraction": ("RelationExtraction.jsonl.gz",),
    "duo_rc": ("DuoRC.jsonl.gz", "DuoRC.ParaphraseRC.jsonl.gz"),
    "drop": ("DROP.jsonl.gz",),
}
MRQA_TASKS = tuple(_MRQA)
"""The six out-of-domain sets, in the order of the paper's table."""


def _flatten_squad(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields one row per question of SQuAD's file."""
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield {
                    "id": question["id"],
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {"text": [answer["text"] for answer in question["answers"]]},
                }


def _flatten_mrqa(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields one row per question of a line of MRQA's file; the first line is a header."""
    if "header" in line:
        return
    for question in line["qas"]:
        yield {
            "qid": question["qid"],
            "question": question["question"].strip(),
            "context": line["context"].strip(),
            "answers": question["answers"],
        }


def _squad_source(data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        return tfds_source(data_dir, "squad/v1.1", "3.0.0")
    folder = existing_folder(data_dir, "SQuAD's train-v1.1.json and dev-v1.1.json")
    files = {split: folder / name for split, name in _SQUAD_FILES.items()}
    return JsonSource(files=files, expand=_flatten_squad)


def _mrqa_source(name: str, data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        return tfds_source(
            data_dir,
            f"mrqa/{name}",
            "1.0.0",
            splits={"validation": "test"},
            fields=("qid", "question", "context", "answers"),
        )
    folder = existing_folder(data_dir, f"MRQA's out-of-domain {_MRQA[name][0]}")
    return JsonlSource(files={"validation": first_file(folder, _MRQA[name])}, expand=_flatten_mrqa)


def _example(row: Row, idx: str, answers: Iterable[str]) -> Example:
    spaced = [spaced_punctuation(answer) for answer in answers]
    if not spaced:
        raise ValueError("no answers; expected at least one")
    return Example(
        inputs=question_text(row), targets=spaced[0], metadata={"idx": idx, "answers": spaced}
    )


_question_task = functools.partial(
    Task, text=question_text, metrics=(metrics.squad,), lengths={"inputs": 512, "targets": 32}
)
register_task(
    _question_task(
        name="squad",
        source=_squad_source,
        render=lambda row, training: [_example(row, row["id"], row["answers"]["text"])],
        splits=tuple(_SQUAD_FILES),
    )
)
for _name in MRQA_TASKS:
    register_task(
        _question_task(
            name=f"mrqa_{_name}",
            source=functools.partial(_mrqa_source, _name),
            render=lambda row, training: [_example(row, row["qid"], row["answers"])],
            splits=("validation",),
        )
    )
