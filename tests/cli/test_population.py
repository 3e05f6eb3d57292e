"""`train` with POPULATION and with `--tune`, from flags to files, on tiny random weights."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from prompt_tuning.cli import configurables, gin_config
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.members import check_member, member_specs
from prompt_tuning.errors import UserError

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = [
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
    "--gin_file=runs/train.gin",
]


@pytest.fixture
def flags(tiny_flags):
    steps = ["--gin.TRAIN_STEPS=4", "--gin.train.eval_every=2", "--gin.train.log_every=1"]
    return [*FILES, *tiny_flags, *steps]


def numbers_in(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    kept = ("step", "loss", "gradient_norm", "eval/accuracy", "eval/score")
    return [{name: row[name] for name in kept if name in row} for row in map(json.loads, lines)]


@pytest.mark.parametrize("side_by_side", [None, pytest.param(True, marks=pytest.mark.slow)])
def test_a_population_from_flags_to_files(flags, tmp_path, capsys, side_by_side):
    members = "[{'SEED': 1}, {'SEED': 2, 'LEARNING_RATE': 0.01, 'PROMPT_LENGTH': 5}, "
    members += "{'MIXTURE_OR_TASK_NAME': 'superglue_cb', 'class_label.labels': ['neutral']}]"
    chosen = f"--gin.population.side_by_side={side_by_side}"
    main(["train", "--profile=1", *flags, f"--gin.POPULATION={members}", chosen])
    run = tmp_path / "run"
    assert list((run / "profile").rglob("perfetto_trace.json.gz"))
    table = capsys.readouterr().out
    names = sorted(path.name for path in (run / "members").iterdir())
    assert names == [
        "mixture_or_task_name_superglue_cb-labels_neutral",
        "seed_1",
        "seed_2-learning_rate_0.01-prompt_length_5",
    ]
    assert all(name in table for name in names)

    # A member's folder is that of a run of its own, which a run of its own goes on with.
    alone = ["--gin.SEED=2", "--gin.LEARNING_RATE=0.01", "--gin.PROMPT_LENGTH=5"]
    main(["train", *flags, *alone, f"--gin.MODEL_DIR={tmp_path / 'alone'}"])
    member = run / "members" / names[2]
    for row, expected in zip(numbers_in(member), numbers_in(tmp_path / "alone"), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    prompts = [np.load(path / "prompt_best.npy") for path in (member, tmp_path / "alone")]
    np.testing.assert_allclose(*prompts, rtol=1e-5, atol=1e-5)
    settings = [
        json.loads((path / "settings.json").read_text()) for path in (member, tmp_path / "alone")
    ]
    assert settings[0] == settings[1]
    rows, expected_rows = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (member, tmp_path / "alone")
    )
    assert [row.keys() for row in rows] == [row.keys() for row in expected_rows]

    summary = json.loads((run / "summary.json").read_text())
    assert [row["name"] for row in summary["members"]] == [names[1], names[2], names[0]]
    assert summary["score"] == max(row["score"] for row in summary["members"])
    best = run / "members" / summary["best"]
    assert (run / "prompt_best.npy").read_bytes() == (best / "prompt_best.npy").read_bytes()
    for folder in (run, member):
        capsys.readouterr()
        main(["evaluate", str(folder)])
        scored = json.loads(capsys.readouterr().out)
        of_folder = json.loads((folder / "summary.json").read_text())
        assert (scored["task"], scored["score"]) == (of_folder["task"], of_folder["score"])

    # The same command has nothing left to do, however it computes; another population is refused.
    before = summary["members"]
    main(["train", *flags, f"--gin.POPULATION={members}", "--gin.population.side_by_side=False"])
    assert json.loads((run / "summary.json").read_text())["members"] == before
    with pytest.raises(UserError, match="belongs to a run with another configuration"):
        main(["train", *flags, "--gin.POPULATION={'SEED': [7, 8]}"])


def test_tuning_ends_with_the_best_prompt(flags, tmp_path, capsys):
    tune = "--gin.TUNE={'LEARNING_RATE': [0.3, 0.01], 'SEED': [3]}"
    main(["train", "--tune", *flags, tune])
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    ended = sorted((row["steps"], row["ended"]) for row in summary["members"])
    assert [steps for steps, _ in ended] == [2, 4]
    assert ended[0][1].startswith("dropped at step 2 (")
    assert summary["score"] == max(row["score"] for row in summary["members"])
    printed = capsys.readouterr()
    assert "2 members tried" in printed.out and "dropped at step 2" in printed.out
    assert (run / "prompt_best.safetensors").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "POPULATION lists no members"),
        ("3", "POPULATION is 3; expected a list of members"),
        ("[3]", "Member 1 of POPULATION is 3; expected settings by name"),
        ("{'SEED': 1}", "POPULATION has SEED = 1; expected a list of values"),
        ("[{'SEED': 1}, {'SEED': 1}]", "lists the member SEED=1 twice"),
        ("[{'MODEL_DIR': 'x'}]", "Member 1 of POPULATION sets MODEL_DIR"),
        ("[{'BATCH_SIZE': 4}]", "sets BATCH_SIZE: data.batch_size would be 4, but is 2"),
        ("[{'adafactor.decay_rate': 0.5}]", "sets adafactor.decay_rate: adafactor.decay_rate"),
        ("[{'train.eval_every': 5}]", "sets train.eval_every"),
        ("[{'PROMPT_FILE': 'x'}]", "sets PROMPT_FILE, which nothing in this configuration uses"),
        ("[{'SEDE': 1}]", "Unknown gin macro 'SEDE'"),
    ],
)
def test_what_is_no_population(flags, tmp_path, value, message):
    flags = [flag for flag in flags if "PROMPT_FILE" not in flag]
    with pytest.raises(UserError, match=message) as caught:
        main(["train", *flags, f"--gin.POPULATION={value}"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "members").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [[1, 2], [1, 2, 3]], ids=["by_member", "by_example"])
def test_members_or_examples_are_shared_out_over_devices(flags, tmp_path, seeds):
    """Two devices change the order of additions and so the last digits, nothing else."""
    prompts = []
    for devices in (1, 2):
        flag = f"--xla_force_host_platform_device_count={devices}"
        folder = tmp_path / f"devices_{devices}"
        command = [sys.executable, "-m", "prompt_tuning.cli", "train", *flags]
        command += [f"--gin.MODEL_DIR={folder}", "--gin.LEARNING_RATE=0.01"]
        command += [f"--gin.POPULATION={{'SEED': {seeds}}}"]
        environment = {**os.environ, "XLA_FLAGS": flag}
        subprocess.run(command, env=environment, check=True, timeout=600, capture_output=True)
        members = sorted((folder / "members").iterdir())
        prompts.append([np.load(member / "prompt_best.npy") for member in members])
    np.testing.assert_allclose(*prompts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "devices", "expected", "places"),
    [("cpu", 1, False, 16), ("cpu", 8, True, 16), ("gpu", 1, True, 16), ("tpu", 4, True, 4)],
)
def test_how_members_train_by_device(monkeypatch, backend, devices, expected, places):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    assert configurables.population() == (places, expected)
    assert configurables.population(places=3, side_by_side=not expected) == (3, not expected)
    with pytest.raises(UserError, match="population.places is 0; it must be at least 1"):
        configurables.population(places=0)


def test_members_have_readable_names():
    specs = member_specs({"SEED": [0, 1], "LEARNING_RATE": [0.1]}, "POPULATION")
    assert [spec.name for spec in specs] == ["seed_0-learning_rate_0.1", "seed_1-learning_rate_0.1"]
    assert specs[1].text == "SEED=1, LEARNING_RATE=0.1"
    names = [spec.name for spec in member_specs([{}, {"a.b": "x/y z"}, {"a.b": "x:y z"}], "TUNE")]
    assert names == ["as_set", "b_x_y_z", "b_x_y_z-2"]


def test_a_member_may_have_its_own_schedule_and_initialiser(tiny_flags):
    bindings = [tuple(flag.removeprefix("--gin.").split("=", 1)) for flag in tiny_flags]
    files = ["tasks/superglue_rte.gin", "prompts/class_label.gin", "runs/train_adamw.gin"]
    gin_config.load(files, bindings)
    assert configurables.successive_halving().keep == 0.5
    base = gin_config.resolved()
    assert base["linear_warmup.value"] == ("0.3", frozenset({"LEARNING_RATE"}))
    (spec,) = member_specs([{"linear_warmup.warmup_steps": 5, "LEARNING_RATE": 0.1}], "POPULATION")
    gin_config.load(files, [*bindings, *spec.flags, ("soft_prompt.initializer", "@from_string")])
    check_member(spec, "POPULATION", base)
