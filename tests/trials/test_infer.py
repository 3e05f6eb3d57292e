"""Trials of answering: input as people have it, and runs away from where they were trained."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from prompt_tuning.cli.run_files import run_answers
from prompt_tuning.evaluation import answerer, rank
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5
from prompt_tuning.recipes import task_file

pytestmark = pytest.mark.usefixtures("compile_once")


LAST = "predictions/step_00000004.jsonl"


def answers(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_trial_01_a_byte_order_mark_is_dropped(finished_run, command, tmp_path):
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a dog ran ."}\n')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfa dog ran .\r\n")
    found = [command("infer", finished_run, "--input", tmp_path / f) for f in ("b.jsonl", "b.txt")]
    assert [result.status for result in found] == [0, 0], found
    assert answers(found[0]) == answers(found[1])
    (answer,) = answers(found[0])
    assert answer["text"] == "a dog ran ." and answer["prediction"] in ("yes", "no")


def test_trial_02_a_csv_file_is_answered_by_its_columns(finished_run, rows, command, tmp_path):
    result = command("infer", finished_run, "--input", rows)
    assert result.status == 0, result.err
    found = answers(result)
    assert [row["text"] for row in found] == [line.split(",")[0] for line in rows.open()][1:]
    # Labels are ranked, each with its log-likelihood.
    for row in found:
        assert row["scores"].keys() == {"no", "yes"}
        assert row["prediction"] == max(row["scores"], key=row["scores"].__getitem__)
    (tmp_path / "other.csv").write_text("review,label\na dog ran .,yes\n")
    result = command("infer", finished_run, "--input", tmp_path / "other.csv")
    assert result.status == 2 and "other.csv:2: no field 'text'" in result.message
    # As an evaluation of the same rows ranks them.
    predictions = tmp_path / "p.jsonl"
    rank_them = "--gin.predict.method=rank"
    assert command("evaluate", finished_run, rank_them, "--predictions", predictions).status == 0
    evaluated = [json.loads(line) for line in predictions.open()]
    assert [row["prediction"] for row in evaluated] == [row["prediction"] for row in found]
    # Both the command and training itself write the inputs down.
    of_training = [json.loads(line) for line in (finished_run / LAST).open()]
    for scored in (evaluated, of_training):
        assert [row["inputs"] for row in scored] == [row["text"] for row in found]
        assert [row["targets"] for row in scored] == [row["label"] for row in found]


def test_a_page_shows_a_known_unk_and_no_withheld_answer(tmp_path):
    known = {"inputs": "first", "targets": "<unk>", "withheld": False, "prediction": "no"}
    absent = {"inputs": "second", "prediction": "no"}
    (tmp_path / "predictions").mkdir()
    lines = [json.dumps(row) + "\n" for row in (known, absent)]
    (tmp_path / "predictions" / "test.jsonl").write_text("".join(lines))
    assert run_answers(tmp_path, {}) == {"test": [known]}


def test_lines_stay_aligned_and_what_is_right_is_answered(finished_run, command, tmp_path):
    asked = tmp_path / "lines.txt"
    asked.write_text('a dog ran .\n\n{"text": " "}\n{"text": "a cat ran ."}\n{broken\nthe end\n')
    result = command("infer", finished_run, "--input", asked)
    assert result.status == 2 and "lines.txt:5: not JSON" in result.message
    assert "--text" in result.message
    found = answers(result)
    assert [row["text"] for row in found] == ["a dog ran .", "", " ", "a cat ran ."]
    assert [row["prediction"] is None for row in found] == [False, True, True, False]
    result = command("infer", finished_run, "--input", asked, "--text")
    assert result.status == 0 and answers(result)[4]["text"] == "{broken"


def test_a_line_fills_a_template_of_one_column(finished_run, command, tmp_path):
    asked = tmp_path / "lines.txt"
    asked.write_text('a dog ran .\n{"inputs": "the a dog ran ."}\n')
    template = "--gin.INPUT_TEMPLATE=the {text}"
    result = command("infer", finished_run, template, "--input", asked)
    assert result.status == 0, result.err
    filled, finished = answers(result)
    assert filled["scores"] == finished["scores"]
    assert "column 'text' of 'the {text}'" in result.err
    two = "--gin.INPUT_TEMPLATE={text} {label}"
    result = command("infer", finished_run, two, "--input", asked)
    assert "read as complete model inputs" in result.err and len(answers(result)) == 2


def test_a_flag_brings_back_decoding(finished_run, rows, command):
    result = command("infer", finished_run, "--input", rows, "--gin.predict.method=greedy")
    assert result.status == 0 and "scores" not in answers(result)[0]


@pytest.fixture
def moved_run(finished_run, tmp_path, monkeypatch):
    """A finished run whose data are gone, and the working directory another one."""
    for name in ("config.gin", task_file.FILE):
        text = (finished_run / name).read_text()
        changed = re.sub(r"""(['"])[^'"]*r\.csv\1""", r"\1r.csv\1", text)
        assert changed != text
        (finished_run / name).write_text(changed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return finished_run


def test_trial_15_a_run_answers_without_its_training_file(moved_run, command):
    for name in ("infer", "neighbors"):
        # Standard input is empty.
        result = command(name, moved_run, *(["--input=/dev/null"] if name == "infer" else []))
        assert result.status == 0, result.err
    assert command("report", moved_run, "-k", "2").status == 0
    assert "can't be shown" not in (moved_run / "report.html").read_text()
    assert command("export", moved_run, "--format=npy", "--output=out").status == 0


def test_trial_15_the_labels_are_those_of_training(moved_run, command, tmp_path):
    # Another file of that name, with other labels, is no matter.
    (tmp_path / "elsewhere" / "r.csv").write_text("text,label\na,maybe\n")
    (tmp_path / "elsewhere" / "q.jsonl").write_text('{"text": "a dog ran ."}\n')
    result = command("infer", moved_run, "--input=q.jsonl", "--gin.predict.method=rank")
    assert result.status == 0, result.err
    assert answers(result)[0]["prediction"] in ("yes", "no")


def test_trial_15_scoring_needs_the_validation_file_alone(moved_run, rows, command):
    shutil.copy(rows, "new.csv")
    result = command("evaluate", moved_run, "--gin.VALIDATION_FILE=new.csv")
    assert result.status == 0, result.err
    result = command("evaluate", moved_run)
    assert result.status == 2 and "r.csv is missing" in result.message


@pytest.fixture
def run_of_a_module(finished_run):
    """A run whose task was made by a module that isn't here any more."""
    config = finished_run / "config.gin"
    text = re.sub(r"MIXTURE_OR_TASK_NAME = .*", "MIXTURE_OR_TASK_NAME = 'gone'", config.read_text())
    config.write_text(f"import my_gone_module\nmy_gone_method.length = 3\n{text}")
    recorded = json.loads((finished_run / task_file.FILE).read_text())
    recorded["modules"] = {"my_gone_module": "/home/me/project"}
    recorded["tasks"][0] |= {"name": "gone", "input_template": None, "target_template": None}
    (finished_run / task_file.FILE).write_text(json.dumps(recorded))
    return finished_run


def test_a_run_whose_module_is_gone_answers_finished_texts(run_of_a_module, command, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"inputs": "a dog ran ."}\n')
    result = command(
        "infer", run_of_a_module, "--input", tmp_path / "q.jsonl", "--gin.predict.method=rank"
    )
    assert result.status == 0, result.err
    assert answers(result)[0]["prediction"] in ("yes", "no")
    (tmp_path / "q.jsonl").write_text('{"text": "a dog ran ."}\n')
    result = command("infer", run_of_a_module, "--input", tmp_path / "q.jsonl")
    assert result.status == 2 and "PYTHONPATH to it" in result.message
    result = command("evaluate", run_of_a_module)
    assert result.status == 2 and "/home/me/project" in result.message


def test_a_lost_frozen_model_is_named(finished_run, command):
    path = finished_run / task_file.FILE
    recorded = json.loads(path.read_text())
    recorded["paths"]["INITIAL_CHECKPOINT_PATH"] = {"given": "tinyworld_tiny", "place": "/gone/t5"}
    path.write_text(json.dumps(recorded))
    result = command("infer", finished_run, "--input=/dev/null")
    assert result.status == 2
    assert "The frozen model of" in result.message and "/gone/t5" in result.message
    # A flag is believed.
    model = "--gin.INITIAL_CHECKPOINT_PATH=tinyworld_small"
    assert "/gone/t5" not in command("infer", finished_run, "--input=/dev/null", model).err


def test_a_damaged_record_is_told(finished_run, command):
    (finished_run / task_file.FILE).write_text("{")
    result = command("infer", finished_run, "--input=/dev/null")
    assert result.status == 2 and "task.json is damaged" in result.message


NARROW = T5Config(
    name="narrow",
    vocab_size=32128,
    embed_dim=8,
    num_heads=1,
    head_dim=8,
    mlp_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
)


PROMPT = Injection(encoder_prompt=np.zeros((32, 2, 8), np.float32))


@pytest.mark.parametrize("prompts", [(Injection(),), (PROMPT,) * 6], ids=["one", "six"])
def test_trial_21_the_memory_of_ranking_grows_with_neither_labels_nor_prompts(prompts):
    """150 labels for a batch of 32 by T5's vocabulary: all their logits at once take 4.6 GiB."""
    program = answerer._program(T5(NARROW), rank.RankOptions(), False)
    labels = np.ones((150, 8), np.int32)
    tokens = jax.ShapeDtypeStruct((32, 16), np.int32)
    run = jax.jit(lambda params, tokens: program(params, prompts, tokens, None, labels))
    memory = run.lower(abstract_params(NARROW), tokens).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2.5 * rank.LOGIT_BYTES


def test_a_pretraining_run_has_no_prompt(command, tmp_path):
    (tmp_path / "config.gin").write_text("CORPUS = 'a.txt'\n\nobjective.batch_size = 4\n")
    for arguments in ("evaluate", "infer --input=/dev/null", "neighbors"):
        name, *others = arguments.split()
        result = command(name, tmp_path, *others)
        assert result.status == 2 and f"{tmp_path} is a pretraining run" in result.message
        assert f"INITIAL_CHECKPOINT_PATH={tmp_path}" in result.message


def test_neighbors_needs_at_least_one(finished_run, command):
    result = command("neighbors", finished_run, "-k", "0")
    assert result.status == 2 and "-k is 0; it must be at least 1" in result.message


def test_evaluate_notes_that_a_prompt_is_of_another_task(finished_run, command):
    result = command("evaluate", finished_run, "--gin.user_files.name=other")
    assert result.status == 0 and "was trained on r and is scored on other" in result.err


def test_compare_has_no_row_without_a_pair(finished_run, command, tmp_path):
    shutil.copytree(finished_run, tmp_path / "twin")
    result = command("compare", finished_run, tmp_path / "twin")
    assert result.status == 0, result.err
    assert "of one task" in result.out and "of two tasks" not in result.out


def test_a_flag_for_the_prompt_is_enough(rows, command, train_flags):
    flags = [*train_flags(), "--gin_file=runs/infer.gin"]
    flags.remove("--gin_file=runs/train.gin")
    flags.remove("--gin_file=prompts/sampled_vocabulary.gin")
    flags = [flag for flag in flags if not re.match(r"--gin\.(train\.|TRAIN_S|PROMPT_L)", flag)]
    result = command("infer", *flags, "--no_prompt", "--input", rows)
    assert result.status == 0, result.err
    assert len(answers(result)) == 6
    result = command("infer", *flags, "--prompt=missing.npy", "--input", rows)
    assert result.status == 2 and "missing.npy" in result.message


def test_a_run_that_ranks_answers_for_named_prompts_too(finished_run, rows, command):
    config = finished_run / "config.gin"
    config.write_text(f"{config.read_text()}\npredict.method = 'rank'\n")
    alone = command("infer", finished_run, "--input", rows)
    named = command("infer", finished_run, "--input", rows, "--prompts", f"p={finished_run}")
    assert alone.status == named.status == 0, named.err
    assert answers(named) == answers(alone)
    assert answers(named)[0]["scores"].keys() == {"no", "yes"}


def test_long_inputs_are_shortened_whichever_way_a_prompt_is_given(finished_run, command, tmp_path):
    record = finished_run / task_file.FILE
    assert json.loads(record.read_text())["tasks"][0]["shorten"] is None
    (tmp_path / "q.jsonl").write_text(json.dumps({"text": "a dog ran . " * 200}) + "\n")
    asked = ("infer", finished_run, "--input", tmp_path / "q.jsonl")
    assert "1 inputs were truncated" in command(*asked).err
    alone = command(*asked, "--gin.data.shorten=text")
    record.write_text(record.read_text().replace('"shorten": null', '"shorten": "text"'))
    named = command(*asked, "--prompts", f"p={finished_run}")
    for result in (alone, named):
        assert result.status == 0 and "cut" not in result.err, result.err
    assert answers(named) == answers(alone)
