"""A SuperGLUE of a few rows in the official layout, and a vocabulary trained on it."""

import json
from pathlib import Path

import pytest
import sentencepiece

from prompt_tuning.data.vocabularies import Vocabulary

RTE = [
    {"premise": "A cat sat on the mat.", "hypothesis": "A cat sat.", "label": "entailment"},
    {"premise": "Rain fell.", "hypothesis": "It was dry.", "label": "not_entailment"},
    {"premise": "Two dogs ran home.", "hypothesis": "Dogs ran.", "label": "entailment"},
]
MULTIRC = {
    "idx": 4,
    "passage": {
        "text": "<b>Sent 1: </b>Ann has a cat.<br><b>Sent 2: </b>It is grey.<br>",
        "questions": [
            {
                "question": "What colour is Ann's cat?",
                "idx": 7,
                "answers": [
                    {"text": "Grey", "idx": 20, "label": 1},
                    {"text": "Black", "idx": 21, "label": 0},
                ],
            },
            {
                "question": "Who has a cat?",
                "idx": 8,
                "answers": [{"text": "Ann", "idx": 22, "label": 1}],
            },
        ],
    },
}
RECORD_TEXT = "Ann met Bob in Rome.\n@highlight\nAnn is a nurse\n@highlight\nBob sings"
RECORD = {
    "idx": 9,
    "source": "CNN",
    "passage": {
        "text": RECORD_TEXT,
        "entities": [{"start": i, "end": j} for i, j in ((8, 10), (0, 2), (15, 18), (32, 34))],
    },
    "qas": [
        {
            "idx": 31,
            "query": "@placeholder travelled to Rome.",
            "answers": [
                {"start": 8, "end": 10, "text": "Bob"},
                {"start": 0, "end": 2, "text": "Ann"},
                {"start": 32, "end": 34, "text": "Ann"},
            ],
        },
        {
            "idx": 32,
            "query": "@placeholder sings.",
            "answers": [{"start": 8, "end": 10, "text": "Bob"}],
        },
    ],
}
WSC = [
    {
        "text": "Mark told Pete many lies about himself, so he felt bad.",
        "target": {
            "span1_index": 0,
            "span1_text": "Mark",
            "span2_index": 8,
            "span2_text": "he",
        },
        "label": True,
    },
    {
        "text": "The dog chased the cat until it was tired.",
        "target": {
            "span1_index": 3,
            "span1_text": "The cat.",
            "span2_index": 6,
            "span2_text": "it",
        },
        "label": False,
    },
]
BOOLQ = [
    {"question": "is rain wet", "passage": "Rain -- Rain is water.", "label": True},
    {"question": "is rain dry", "passage": "Rain -- Rain is water.", "label": False},
]
CB = [
    {"premise": "He knows it rained.", "hypothesis": "it rained", "label": "entailment"},
    {"premise": "He denies it rained.", "hypothesis": "it rained", "label": "neutral"},
    {"premise": "No rain fell.", "hypothesis": "it rained", "label": "contradiction"},
]
COPA = [
    {
        "premise": "The glass fell.",
        "choice1": "It broke.",
        "choice2": "It sang.",
        "question": "effect",
        "label": 0,
    },
    {
        "premise": "The man slept.",
        "choice1": "He ran.",
        "choice2": "He was tired.",
        "question": "cause",
        "label": 1,
    },
]
WIC = [
    {
        "word": "bank",
        "sentence1": "The river bank.",
        "sentence2": "The bank lent money.",
        "start1": 10,
        "end1": 14,
        "start2": 4,
        "end2": 8,
        "version": 1.1,
        "label": False,
    },
    {
        "word": "run",
        "sentence1": "They run.",
        "sentence2": "We run home.",
        "start1": 5,
        "end1": 8,
        "start2": 3,
        "end2": 6,
        "version": 1.1,
        "label": True,
    },
]
AXB = [
    {"sentence1": "The cat sat.", "sentence2": "The cat did not sit.", "label": "not_entailment"},
    {"sentence1": "The cat sat.", "sentence2": "A cat sat.", "label": "entailment"},
]
ROWS = {
    "BoolQ": BOOLQ,
    "CB": CB,
    "COPA": COPA,
    "MultiRC": [MULTIRC],
    "ReCoRD": [RECORD],
    "RTE": RTE,
    "WiC": WIC,
    "WSC": WSC,
    "AX-b": AXB,
    "AX-g": RTE,
}


def unlabeled(row: dict) -> dict:
    """The row as an official test split has it."""
    row = json.loads(json.dumps(row))
    row.pop("label", None)
    for query in row.get("qas", ()):
        query.pop("answers")
    if "questions" in (passage := row.get("passage", {})):
        for question in passage["questions"]:
            for answer in question["answers"]:
                answer.pop("label")
    return row


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    numbered = [{"idx": i} | row for i, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in numbered), encoding="utf-8")
    return path


def write_superglue(folder: Path) -> Path:
    for name, rows in ROWS.items():
        if name.startswith("AX-"):
            write_jsonl(folder / name / f"{name}.jsonl", rows)
            continue
        write_jsonl(folder / name / "train.jsonl", rows)
        write_jsonl(folder / name / "val.jsonl", rows)
        write_jsonl(folder / name / "test.jsonl", [unlabeled(row) for row in rows])
    return folder


@pytest.fixture(scope="session")
def tiny_superglue(tmp_path_factory) -> Path:
    """The official layout, a few rows each; not to be changed."""
    return write_superglue(tmp_path_factory.mktemp("superglue"))


@pytest.fixture(scope="session")
def tiny_vocabulary(tmp_path_factory) -> Vocabulary:
    """T5's special ids, a hundred pieces and four sentinels."""
    folder = tmp_path_factory.mktemp("vocabulary")
    sentences = [json.dumps(row) for rows in ROWS.values() for row in rows]
    sentences.append("True False")  # label words that the rows hold as booleans
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "tiny"),
        vocab_size=100,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return Vocabulary(folder / "tiny.model", extra_ids=4)


@pytest.fixture(scope="session")
def t5_vocabulary(real_data) -> Vocabulary:
    """T5's own vocabulary."""
    return Vocabulary(real_data / "vocab" / "t5_sentencepiece_32k.model")
