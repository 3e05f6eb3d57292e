"""A few rows of every task but SuperGLUE's, laid out as the official files are.

`write` fills a data folder; the texts of the rows are what the tests of the tasks expect.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

SENTENCES = (
    "The long letter that nobody ever wrote was read aloud.",
    "Reads letter the aloud long nobody.",
    "A quiet film about two brothers and their old boat.",
)
PAIRS = (
    ("Where can one buy a boat in Rome?", "In which shop of Rome are boats sold?"),
    ("Who wrote the letter to Ann?", "When was the letter to Ann written?"),
    ("How old is the oldest film?", "What is the age of the oldest film?"),
)
SIMILARITIES = ("5.000", "0.700", "4.1")


def write_tsv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_jsonl(path: Path, rows: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    packed = gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode()
    path.write_bytes(packed)


def labelled(
    path: Path, columns: Sequence[str], label: str, labels: Sequence[object], pairs=PAIRS
) -> None:
    """A GLUE file of pairs: index, the columns and the label; unlabeled if `label` is empty."""
    header = ["index", *columns, *([label] if label else [])]
    rows = [
        [index, *pair, *([value] if label else [])]
        for index, (pair, value) in enumerate(zip(pairs, labels, strict=True))
    ]
    write_tsv(path, [header, *rows])


def write_glue(folder: Path) -> None:
    for file in ("train.tsv", "dev.tsv"):
        cola = [["gj04", label, "*", text] for label, text in zip("101", SENTENCES, strict=True)]
        write_tsv(folder / "CoLA" / file, cola)
        sst2 = [[f"{text} ", label] for label, text in zip("100", SENTENCES, strict=True)]
        write_tsv(folder / "SST-2" / file, [["sentence", "label"], *sst2])
    for task in ("CoLA", "SST-2"):
        rows = [[index, text] for index, text in enumerate(SENTENCES)]
        write_tsv(folder / task / "test.tsv", [["index", "sentence"], *rows])

    sentences = ("sentence1", "sentence2")
    tables = {
        "QQP": (("question1", "question2"), "is_duplicate", (1, 0, 1)),
        "STS-B": (sentences, "score", SIMILARITIES),
        "QNLI": (("question", "sentence"), "label", ("entailment", "not_entailment") * 2),
        "RTE": (sentences, "label", ("entailment", "not_entailment") * 2),
        "WNLI": (sentences, "label", (1, 0, 1)),
    }
    for task, (columns, label, labels) in tables.items():
        for file in ("train.tsv", "dev.tsv"):
            labelled(folder / task / file, columns, label, labels[:3])
        labelled(folder / task / "test.tsv", columns, "", labels[:3])
    with (folder / "QQP" / "train.tsv").open("a") as file:
        file.write("3\tA row that is cut off\n")  # as three of the official file are

    nli = ("neutral", "contradiction", "entailment")
    for part in ("train", "dev_matched", "dev_mismatched"):
        labelled(folder / "MNLI" / f"{part}.tsv", sentences, "gold_label", nli)
    for part in ("test_matched", "test_mismatched"):
        labelled(folder / "MNLI" / f"{part}.tsv", sentences, "", nli)
    labelled(folder / "diagnostic" / "diagnostic.tsv", sentences, "", nli)
    full = [[*pair, label] for pair, label in zip(PAIRS, nli, strict=True)]
    header = ["Premise", "Hypothesis", "Label"]
    write_tsv(folder / "diagnostic" / "diagnostic-full.tsv", [header, *full])

    header = ["\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    labels = (1, 0, 1)
    rows = [[labels[i], 10 + i, 20 + i, *pair] for i, pair in enumerate(PAIRS)]
    write_tsv(folder / "MRPC" / "msr_paraphrase_train.txt", [header, *rows])
    write_tsv(folder / "MRPC" / "msr_paraphrase_test.txt", [header, *rows])
    write_tsv(folder / "MRPC" / "dev_ids.tsv", [[11, 21]])


CONTEXT = 'Ann\'s boat (built in 1845-1846) is called "The Star". It sank in Rome.'
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Boats",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "What is Ann's boat called?",
                            "answers": [
                                {"text": "The Star", "answer_start": 46},
                                {"text": '"The Star"', "answer_start": 45},
                            ],
                        },
                        {
                            "id": "q2",
                            "question": "When was the  boat built?",
                            "answers": [{"text": "1845-1846", "answer_start": 21}],
                        },
                    ],
                }
            ],
        }
    ],
}


def mrqa(subset: str) -> list[dict]:
    """The lines of one of MRQA's files."""
    context = "[TLE] Boats [PAR] The boat of Ann is called the Star. It sank near Rome in 1846. "
    answer = {"text": "the Star", "char_spans": [[44, 51]], "token_spans": [[11, 12]]}
    question = {
        "qid": f"{subset}-1",
        "question": "What is the boat called? ",
        "question_tokens": [["What", 0]],
        "detected_answers": [answer],
        "answers": ["the Star", "Star"],
    }
    return [
        {"header": {"dataset": subset, "split": "dev"}},
        {"context": context, "context_tokens": [["[TLE]", 0]], "qas": [question]},
    ]


MRQA_FILES = ("BioASQ", "DROP", "DuoRC.ParaphraseRC", "RACE", "RelationExtraction", "TextbookQA")


def write_questions(folder: Path) -> None:
    for file in ("train-v1.1.json", "dev-v1.1.json"):
        (folder / file).write_text(json.dumps(SQUAD), encoding="utf-8")
    for subset in MRQA_FILES:
        write_jsonl(folder / f"{subset}.jsonl.gz", mrqa(subset))


DPR = """Mitchell asked Tom if he could lend some money.
he
Mitchell,Tom
Tom

Carl borrowed a book from Richard, but the book was unreadable to him.
him
Carl,Richard
Carl

"""


def write_dpr(folder: Path) -> None:
    (folder / "DPR").mkdir(parents=True, exist_ok=True)
    for file in ("train.c.txt", "test.c.txt"):
        (folder / "DPR" / file).write_text(DPR, encoding="utf-8")


def write_summaries(folder: Path) -> None:
    article = " ".join(SENTENCES)
    for part in ("train", "val", "test"):
        write_jsonl(
            folder / "xsum" / f"{part}.jsonl", [{"document": article, "summary": SENTENCES[2]}]
        )
        write_jsonl(
            folder / "cnn_dailymail" / f"{part}.jsonl",
            [{"article": article, "highlights": "\n".join(SENTENCES[1:])}],
        )


def write(folder: Path) -> Path:
    write_glue(folder)
    write_questions(folder)
    write_dpr(folder)
    write_summaries(folder)
    return folder
