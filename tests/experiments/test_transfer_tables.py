"""Scores on tasks that weren't trained on: the table, and a picture for each model."""

import pytest

from prompt_tuning.errors import UserError


@pytest.fixture
def transfer(load_experiment):
    return load_experiment("domain_shift", "transfer")


def rows(model="small", methods=("model tuning", "prompt tuning")):
    return [
        {
            "model": model,
            "method": method,
            "trained on": "glue_qqp",
            "task": task,
            "accuracy": 0.5 + 0.25 * place + 0.125 * seed,
            "f1": 0.5 if task == "glue_mrpc" else None,
        }
        for place, method in enumerate(methods)
        for seed in (0, 1)
        for task in ("glue_qqp", "glue_mrpc")
    ]


def test_the_table_has_means_deviations_and_differences(transfer):
    lines = transfer.transfer_table(rows(), ("accuracy", "f1")).splitlines()
    assert lines[2:] == [
        "| small | glue_qqp | glue_qqp | accuracy | 0.562 ± 0.088 | 0.812 ± 0.088 | +0.250 |",
        "| small | glue_qqp | glue_mrpc | accuracy | 0.562 ± 0.088 | 0.812 ± 0.088 | +0.250 |",
        "| small | glue_qqp | glue_mrpc | f1 | 0.500 ± 0.000 | 0.500 ± 0.000 | +0.000 |",
    ]


def test_a_method_without_scores_is_told(transfer):
    with pytest.raises(UserError, match="No run of prompt tuning on small was scored on glue_qqp"):
        transfer.transfer_table(rows(methods=("model tuning",)), ("accuracy",))


def test_there_is_a_picture_for_each_model(transfer, tmp_path):
    (alone,) = transfer.plot_transfer(rows(), tmp_path / "x", "accuracy", "Accuracy")
    both = transfer.plot_transfer([*rows(), *rows("base")], tmp_path / "x", "accuracy", "Accuracy")
    assert [path.name for path in (alone, *both)] == ["x.png", "x_small.png", "x_base.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in both)
