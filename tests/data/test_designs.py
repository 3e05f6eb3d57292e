"""Designs: what a file may say, what a model would read, and how its answers are scored."""

import json

import pytest

from prompt_tuning.cli import gin_config
from prompt_tuning.data.designs import SHOTS, designed, read_designs
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.errors import UserError

RTE = get_task("superglue_rte")
WORDS = 'words = {entailment = "yes", not_entailment = "no"}\n'
CLAIM = 'input = "{premise} Claim: {hypothesis} yes or no?"\n' + WORDS


def always(text):
    return True


@pytest.fixture
def read(tmp_path):
    """Returns the one design of a file with this entry."""

    def from_text(entry, task="superglue_rte"):
        path = tmp_path / "designs.toml"
        path.write_text(f"[{task}.claim]\n{entry}")
        return read_designs(path)[task]["claim"]

    return from_text


@pytest.fixture
def rte_files(tmp_path):
    """A folder of RTE with six training rows, and two to score, of which one was trained on."""

    def row(i):
        label = "entailment" if i % 2 else "not_entailment"
        return {"premise": f"p{i}.", "hypothesis": f"h{i}.", "label": label, "idx": i}

    folder = tmp_path / "data"
    (folder / "RTE").mkdir(parents=True)
    for name, numbers in {"train": range(6), "val": (3, 9)}.items():
        lines = [json.dumps(row(i)) for i in numbers]
        (folder / "RTE" / f"{name}.jsonl").write_text("\n".join(lines))
    return str(folder)


def test_zero_shot_text_and_words(read, rte_files):
    task = designed(RTE, read(CLAIM), fits=always)
    example, _ = task.examples("validation", rte_files)
    assert example.inputs == "p3. Claim: h3. yes or no?"
    assert (example.targets, task.labels) == ("yes", ("yes", "no"))
    assert example.metadata == {"idx": 3, SHOTS: 0}


def test_shots_are_solved_training_examples_drawn_by_seed(read, rte_files):
    def text(seed, shots=2):
        task = designed(RTE, read(CLAIM), shots=shots, seed=seed, data_dir=rte_files, fits=always)
        return [example.inputs for example in task.examples("validation", rte_files)]

    first, second = text(seed=1)
    *solved, question = first.split(" yes or no?")[:-1]
    assert question.endswith("p3. Claim: h3.")
    assert len(solved) == 2 and first.count("yes or no? no") + first.count("yes or no? yes") == 2
    for part in first.removesuffix("p3. Claim: h3. yes or no?").split(" p")[1:]:
        number = int(part[0])
        assert part.split("?")[1].strip() == ("yes" if number % 2 else "no")
    assert text(seed=1) == [first, second]
    assert len({tuple(text(seed)) for seed in range(5)}) > 1
    # Drawn anew for each question.
    assert any(a.split("?")[0] != b.split("?")[0] for a, b in map(text, range(5)))


def test_a_question_is_never_among_its_own_solved_examples(read, rte_files):
    """The first question stands in the training split as well."""
    for seed in range(8):
        task = designed(RTE, read(CLAIM), shots=5, seed=seed, data_dir=rte_files, fits=always)
        first, second = task.examples("validation", rte_files)
        assert first.inputs.count("p3.") == 1
        assert first.metadata[SHOTS] == second.metadata[SHOTS] == 5


def test_shots_that_have_no_room_are_left_out(read, rte_files):
    def shots(limit):
        task = designed(
            RTE,
            read(CLAIM),
            shots=4,
            data_dir=rte_files,
            fits=lambda text: len(text.split()) <= limit,
        )
        return [example.metadata[SHOTS] for example in task.examples("validation", rte_files)]

    # A question is 6 words, a solved one 7.
    assert shots(6 + 4 * 7) == [4, 4]
    assert shots(6 + 2 * 7 + 3) == [2, 2]
    assert shots(6) == shots(1) == [0, 0]


def test_answers_are_scored_as_the_labels_they_stand_for(read):
    task = designed(
        get_task("superglue_cb"),
        read(
            'input = "{premise} {hypothesis}"\n'
            'words = {entailment = "yes", contradiction = "no", neutral = "neutral"}\n',
            "superglue_cb",
        ),
        fits=always,
    )
    examples = [{"targets": word} for word in ("yes", "no", "neutral", "yes")]
    scores = task.evaluate(examples, ["yes", "yes", "neutral", "entailment"])
    assert scores["accuracy"] == 0.5  # the label itself is none of the words
    assert scores["macro_f1"] == pytest.approx((0.5 + 0 + 1) / 3)


def test_lists_and_texts_of_a_row(read):
    record = get_task("superglue_record")
    row = {"passage": "P", "query": "Q", "entities": ["a", "b"], "answers": ["a"], "idx": {}}
    design = read('input = "{entities} | {inputs}"', "superglue_record")
    (example,) = designed(record, design, fits=always).render(row, False)
    assert example.inputs == "a, b | query: Q entities: a, b passage: P"
    assert example.targets == "a"


def test_every_shipped_design_words_its_task(tiny_superglue):
    files = sorted((gin_config.shipped_configs() / "designs").glob("*.toml"))
    designs = {task: found for file in files for task, found in read_designs(file).items()}
    known = [
        f"{of}_{task}"
        for of in ("superglue", "tinyworld")
        for task in ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
    ]
    assert sorted(designs) == sorted(known) and set(known) <= set(list_tasks())
    for name, found in designs.items():
        assert len(found) > 1, f"nothing to choose among for {name}"
        for design in found.values():
            folder = str(tiny_superglue)
            task = designed(get_task(name), design, shots=1, data_dir=folder, fits=always)
            for example in task.examples("validation", folder):
                assert example.metadata[SHOTS] <= 1 and "{" not in example.inputs


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("words = 3", "has no text 'input'"),
        ('input = "{premise"', r"\[superglue_rte.claim\]: The input .* is not a template"),
        ('input = "True or False?"', "is not a template"),
        ('input = "{premise} {label}"', "shows label, which contains the answer"),
        ('inputs = "{premise}"\ninput = "{premise}"', "Did you mean 'input'"),
        ('input = "{premise}"\nwords = "yes"', "expected a word for each label"),
        ('input = "{premise}"\nseparator = 3', "'separator' is 3"),
        ("input = {", "is not TOML"),
    ],
)
def test_bad_entries_are_told(read, entry, message):
    with pytest.raises(UserError, match=message) as raised:
        read(entry)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "task", "options", "message"),
    [
        ('input = "{premis}"', "rte", {}, "names the field 'premis'.*Did you mean 'premise'"),
        ('input = "{premise}"\nwords = {True = "a"}', "rte", {}, "labels of superglue_rte are ent"),
        (
            'input = "{premise}"\nwords = {entailment = "a", not_entailment = "a"}',
            "rte",
            {},
            "gives two labels the same word",
        ),
        (
            'input = "{text}"\nwords = {True = "a", False = "b"}',
            "wsc",
            {},
            "answers of superglue_wsc are free text",
        ),
        ('input = "{premise}"', "rte", {"shots": -1}, "shots is -1"),
        ('input = "{premise}"', "rte", {"seed": -1}, "seed is -1"),
        ('input = "{premise}"', "rte", {"shots": 7}, "7 solved .* training split .* has 3"),
        ('input = "{sentence1}"', "axb", {"shots": 1}, "has no training split"),
    ],
)
def test_mistakes_are_told(read, tiny_superglue, entry, task, options, message):
    folder = str(tiny_superglue)
    with pytest.raises(UserError, match=message):
        task = designed(
            get_task(f"superglue_{task}"), read(entry), data_dir=folder, fits=always, **options
        )
        list(task.examples("validation", folder))


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(UserError, match="Cannot read .*none.toml: .*none.toml is missing"):
        read_designs(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_designs(tmp_path / "latin.toml")
    (tmp_path / "flat.toml").write_text("superglue_rte = 'text'")
    with pytest.raises(UserError, match="expected entries like"):
        read_designs(tmp_path / "flat.toml")
