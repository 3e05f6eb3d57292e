"""`prompt-tuning plan` as a command."""

import json

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.errors import UserError
from prompt_tuning.planning.compilers import missing
from prompt_tuning.planning.machines import find_machine

MODEL = ["plan", "--gin_file=models/t5_1_1_small.gin"]


def test_a_mesh_of_emulated_devices(tiny_flags, tmp_path, capfd):
    file = tmp_path / "plan.json"
    mesh = ["--accelerator=v5e-4", "--gin.MODEL_PARALLEL=2", f"--json={file}"]
    assert main([*MODEL, *tiny_flags, *mesh]) == 0
    text = capfd.readouterr().out
    assert "tiny_random on 4 x v5e: mesh data 2 x model 2, batch 2, prompt 3" in text
    assert "It fits" in text

    plan = json.loads(file.read_text())
    memory = plan["memory"]
    # Everything but norms is split in two.
    assert 0.5 < memory["weights"] / memory["all_weights"] < 0.51
    # Along `data` go the gradient of the prompt [3, 16] in float32, and two sums of the loss.
    (along_data,) = [traffic for traffic in plan["traffic"] if traffic["along"] == "data"]
    assert along_data["kind"] == "all-reduce"
    assert along_data["bytes"] == 3 * 16 * 4 + 2 * 4
    # Along `model`, in each of two layers, at least the sums after attention and feed-forward,
    # forward and backward.
    along_model = [traffic for traffic in plan["traffic"] if traffic["along"] == "model"]
    assert sum(traffic["times"] for traffic in along_model) >= 8
    assert plan["fits"] and plan["seconds"]["step"] > 0
    assert plan["train_steps"] == 1


def test_a_batch_in_tokens_has_the_rows_of_the_longest_inputs(tiny_flags, capfd):
    tokens = ["--gin.BATCH_TOKENS=250"]
    assert main([*MODEL, *tiny_flags, *tokens, "--accelerator=v5e-4", "--no_advice"]) == 0
    # 250 // (40 + 3) is 5; four devices take one each.
    assert "mesh data 4 x model 1, batch 4, prompt 3" in capfd.readouterr().out


def test_under_fsdp_weights_are_gathered_and_activations_stay_split(tiny_flags, tmp_path):
    file = tmp_path / "plan.json"
    flags = ["--gin.FSDP=True", "--gin.frozen_model.matmul_dtype=auto", f"--json={file}"]
    assert main([*MODEL, *tiny_flags, "--accelerator=v5e-2", *flags]) == 0
    plan = json.loads(file.read_text())
    assert plan["config"]["matmul_dtype"] == "bfloat16"
    memory = plan["memory"]
    # The tables of relative positions, and norms, are whole on both.
    assert 0.5 < memory["weights"] / memory["all_weights"] < 0.52
    traffic = {found["kind"]: found for found in plan["traffic"]}
    # Forward and backward need about all weights; the input's table is not multiplied with.
    assert traffic["all-gather"]["bytes"] > 0.5 * memory["all_weights"] / 2
    assert traffic["all-reduce"]["bytes"] == 3 * 16 * 4 + 2 * 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accelerator=v5f-16"], "Unknown accelerator 'v5f-16'"),
        (["--accelerator=a100"], "Did you mean 'A100-40GB' or 'A100-80GB'"),
        (["--accelerator=v5e-16", "--devices=4"], "but v5e-16 has 16"),
        (["--accelerator=v5e-1", "--gin.MODEL_PARALLEL=3"], "MODEL_PARALLEL is 3"),
        (["--accelerator=v5e-1", "--gin.MODEL_PARALEL=3"], "Did you mean 'MODEL_PARALLEL'"),
        (["--accelerator=v5e-1", "--gin.BATCH_SIZE=0"], "BATCH_SIZE is 0"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, monkeypatch):
    # As in the process of its own that it starts; the tests' own has one device, too.
    monkeypatch.setenv("PROMPT_TUNING_PLAN_INSIDE", "1 x v5e")
    with pytest.raises(UserError) as error:
        main([*MODEL, *flags])
    assert message in str(error.value)


def test_a_mistake_found_while_planning_is_the_commands_status(tiny_flags, tmp_path, capfd):
    file = tmp_path / "plan.json"
    file.write_text("mine")
    assert main([*MODEL, *tiny_flags, "--accelerator=v5e-1", f"--json={file}"]) == 2
    assert "plan.json" in capfd.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["v3-8", "v4-8", "v5e-4", "v5p-8", "v6e-4", "a100-40gb", "a100-80gb", "h100", "h200"]
)
def test_the_accelerators_own_compiler(name, tiny_flags, tmp_path, capfd):
    machine = find_machine(name, None if "-" in name and name[0] == "v" else 4)
    if needed := missing(machine.accelerator):
        pytest.skip(f"{machine.accelerator.name}'s compiler isn't installed: {needed}")
    file = tmp_path / "plan.json"
    flags = [f"--accelerator={machine.accelerator.name}", f"--devices={machine.devices}"]
    flags += ["--gin.MODEL_PARALLEL=2", "--gin.BATCH_SIZE=4", f"--json={file}"]
    assert main([*MODEL, *tiny_flags, *flags]) == 0
    text, plan = capfd.readouterr().out, json.loads(file.read_text())
    gpu = machine.accelerator.is_gpu
    assert plan["compiler"] == ("gpu" if gpu else "tpu")
    assert "emulated" not in text and "dearest parts" in text and "It fits" in text
    assert (plan["cycles"] > 0) != gpu and (plan["flops"] > 0) == gpu
    assert 0 < plan["seconds"]["compute"] < plan["seconds"]["step"] < 0.1
    assert {each["along"] for each in plan["traffic"]} >= {"model"}


@pytest.mark.slow
def test_a_refusal_and_what_would_fit(tmp_path, capfd):
    machine = find_machine("v5e")
    if needed := missing(machine.accelerator):
        pytest.skip(f"v5e's compiler isn't installed: {needed}")
    file = tmp_path / "plan.json"
    large = ["plan", "--gin_file=models/t5_1_1_lm100k_large.gin", "--accelerator=v5e"]
    large += [f"--gin.frozen_model.{setting}" for setting in ("remat=False", "unroll=1")]
    large += ["--gin.BATCH_SIZE=64"]
    assert main([*large, f"--json={file}"]) == 0
    text, plan = capfd.readouterr().out, json.loads(file.read_text())
    assert "The compiler refuses it: Ran out of memory" in text
    assert not plan["fits"] and plan["seconds"] is None
    assert plan["attempts"][-1]["fits"] and plan["attempts"][-1]["seconds"] > 0
