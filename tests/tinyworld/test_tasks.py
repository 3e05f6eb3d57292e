"""TinyWorld's tasks: deterministic, balanced, disjoint, and not to be solved by word counts."""

import collections
import functools
import importlib.resources
import json
import shutil
from pathlib import Path

import corpus
import exercises
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from prompt_tuning.errors import UserError
from prompt_tuning.tinyworld import generate, lexicon, tasks, world

rows = functools.cache(generate.rows)


LARGE = 20_000
"""Training rows of `experiments/scale_curve`."""


def flatten(task: str, split: str, count: int | None = None) -> list[tuple[str, object, int]]:
    """Returns (text, label, group) of every decision a task asks for.

    Where an answer is generated, the decision is whether a candidate is the answer, and the
    candidates of one question are a group; otherwise the group is -1.
    """
    decisions = []
    for index, row in enumerate(rows(task, split, count)):
        if task == "MultiRC":
            for question in row["passage"]["questions"]:
                for answer in question["answers"]:
                    text = f"{row['passage']['text']} {question['question']} {answer['text']}"
                    decisions.append((text, bool(answer["label"]), -1))
        elif task == "ReCoRD":
            passage, query = row["passage"], row["qas"][0]
            for entity in passage["entities"]:
                name = passage["text"][entity["start"] : entity["end"] + 1]
                text = f"{passage['text']} {query['query']} {name}"
                decisions.append((text, name == query["answers"][0]["text"], index))
        elif task == "WSC":
            text = f"{row['text']} {row['target']['span1_text']}"
            decisions.append((text, row["label"], -1))
        else:
            fields = (
                value for key, value in row.items() if isinstance(value, str) and key != "label"
            )
            decisions.append((" ".join(fields), row["label"], -1))
    return decisions


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("binary", [False, True], ids=["counts", "presence"])
@pytest.mark.parametrize("count", [None, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_a_bag_of_words_does_not_solve_it(task, binary, count):
    # Many rows teach that a word that ends one sentence of WiC, before a period, is of one sense.
    limit = 0.7 if (task, count) == ("WiC", LARGE) else 0.65
    train, test = flatten(task, "train", count), flatten(task, "val") + flatten(task, "test")
    classifier = make_pipeline(
        CountVectorizer(binary=binary, token_pattern=r"\S+"), LogisticRegression(max_iter=300)
    )
    classifier.fit([text for text, _, _ in train], [label for _, label, _ in train])
    texts = [text for text, _, _ in test]
    labels = [label for _, label, _ in test]
    if task != "ReCoRD":
        assert classifier.score(texts, labels) <= limit
        return
    chosen = {}
    for score, label, (_, _, group) in zip(
        classifier.decision_function(texts), labels, test, strict=True
    ):
        if score > chosen.get(group, (-np.inf, False))[0]:
            chosen[group] = (score, label)
    assert np.mean([label for _, label in chosen.values()]) <= limit


@pytest.mark.parametrize("task", tasks.TASKS)
def test_labels_are_balanced(task):
    counts = collections.Counter(label for _, label, _ in flatten(task, "val"))
    assert max(counts.values()) - min(counts.values()) <= 1 or task == "ReCoRD"


def test_the_answer_to_record_is_in_no_favoured_place():
    places = collections.Counter()
    for row in rows("ReCoRD", "train"):
        starts = [entity["start"] for entity in row["passage"]["entities"]]
        places[starts.index(row["qas"][0]["answers"][0]["start"])] += 1
    assert all(abs(count / 2000 - 1 / 3) < 0.05 for count in places.values())


@pytest.mark.parametrize("task", tasks.TASKS)
def test_no_passage_is_shared_between_splits(task):
    seen = {split: set(map(passage_of, rows(task, split))) for split in generate.SPLITS}
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


@pytest.mark.slow
@pytest.mark.parametrize("task", tasks.TASKS)
def test_more_training_rows_continue_the_stream_and_share_no_passage_either(task):
    large = rows(task, "train", LARGE)
    assert large[:2000] == rows(task, "train") and len(large) == LARGE
    told = {passage_of(row) for split in ("val", "test") for row in rows(task, split)}
    assert not told & set(map(passage_of, large))


def passage_of(row: dict) -> str:
    """What a row tells, without what it asks, and without how often it asks it."""
    if "passage" in row:
        return row["passage"]["text"] if isinstance(row["passage"], dict) else row["passage"]
    if "sentence1" in row:
        return f"{row['sentence1']} {row['sentence2']}"
    return row.get("text") or row["premise"]


def test_no_told_fact_is_in_the_corpus():
    told = {
        said
        for task in ("RTE", "BoolQ", "MultiRC", "ReCoRD", "CB", "WiC", "WSC", "COPA")
        for row in rows(task, "val")
        for said in passage_of(row).split(". ")
    }
    # `verify_colour` claims what isn't so, and that may be so in a task's passage.
    writers = {*corpus.STORIES, *corpus.EXERCISES} - {exercises.verify_colour}
    writers = sorted(writers, key=lambda write: write.__name__)
    corpus_world = world.World("corpus", seed=0)
    for _ in range(20_000):
        text = corpus_world.rng.choice(writers)(corpus_world).context
        assert not told & {said.rstrip(".") + "." for said in text.split(". ")} - {""}


def test_every_fact_has_one_region_and_worlds_keep_to_theirs():
    for region in ("corpus", "train", "validation", "test"):
        some = world.World(region, seed=3)
        for _ in range(20):
            for fact in (
                some.action("Mara"),
                some.event(),
                some.usage("bat", 0),
                some.motive(),
                *some.colours(3),
            ):
                assert world.region_of(fact) == region


def test_rows_are_the_same_every_time():
    again = generate.rows("RTE", "val")
    assert json.dumps(again) == json.dumps(rows("RTE", "val"))
    assert again[0] != rows("RTE", "test")[0]


def test_every_kind_has_its_own_things():
    assert len(lexicon.KIND_OF) == sum(map(len, lexicon.KINDS.values()))


def test_wic_spans_hold_the_word():
    for row in rows("WiC", "val"):
        for number in (1, 2):
            text = row[f"sentence{number}"]
            assert text[row[f"start{number}"] : row[f"end{number}"]] == row["word"]


def test_wsc_indices_are_of_words():
    for row in rows("WSC", "val"):
        words = row["text"].split()
        target = row["target"]
        assert words[target["span1_index"]] == target["span1_text"]
        assert words[target["span2_index"]] == target["span2_text"]


def test_the_folder_is_the_official_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SPLITS", {"val": ("validation", 3)})
    folder = generate.tinyworld_folder(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(tasks.TASKS)
    lines = (folder / "RTE" / "val.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == generate.rows("RTE", "val")
    assert generate.tinyworld_folder(tmp_path) == folder


def test_a_larger_training_split_is_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SPLITS", {"train": ("train", 3), "val": ("validation", 3)})
    folder, large = (generate.tinyworld_folder(tmp_path, count) for count in (None, 5))
    assert folder != large
    for name, count in (("train", 5), ("val", 3)):
        lines = (large / "WSC" / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == count
        assert lines[:3] == (folder / "WSC" / f"{name}.jsonl").read_text().splitlines()


def test_another_generator_fills_another_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SPLITS", {"val": ("validation", 3)})
    sources = tmp_path / "sources"
    shutil.copytree(Path(generate.__file__).parent, sources)
    monkeypatch.setattr(importlib.resources, "files", lambda package: sources)
    folders = {generate.tinyworld_folder(tmp_path)}
    for name in ("lexicon", "world", "templates", "tasks", "generate"):
        with (sources / f"{name}.py").open("a") as file:
            file.write("# changed\n")
        folders.add(generate.tinyworld_folder(tmp_path))
    assert len(folders) == 6
    (sources / "lands.py").write_text("# no row is made by it\n")
    assert generate.tinyworld_folder(tmp_path) in folders


def test_every_module_that_rows_are_made_by_names_the_folder():
    """A new module of TinyWorld belongs in the digest, unless no row there is made by it."""
    modules = {path.name for path in Path(generate.__file__).parent.glob("*.py")}
    assert modules - set(generate._SOURCES) == {
        "__init__.py",
        "lands.py",
    }


def test_a_cache_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Can't write .*File exists.*PROMPT_TUNING_CACHE"):
        generate.tinyworld_folder(tmp_path / "file")
