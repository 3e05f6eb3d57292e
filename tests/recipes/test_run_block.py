import dataclasses

from prompt_tuning.recipes.run_block import RunFacts, learning_rate_text, start_block
from prompt_tuning.training.optimizers import adafactor, adamw, linear_warmup
from prompt_tuning.training.screen import scores_text

FACTS = RunFacts(
    method="soft_prompt",
    trainable=1_920,
    model="tinyworld_small",
    parameters=2_000_000,
    optimizer="adafactor",
    learning_rate="0.3",
    tasks=["rte: 2,000 training examples, 400 validation examples; labels: a (1,200), b (800)."],
    lengths={"inputs": 64, "targets": 4},
    cut={"rte train": {"inputs": 12, "targets": 0}, "rte validation": {"inputs": 0}},
    batch="32 examples",
    steps=300,
    epochs=4.8,
    precision="float32 weights, float32 activations",
    devices="1 x cpu",
    folder="runs/x/",
)


def test_the_block_of_a_run():
    assert start_block(FACTS).splitlines() == [
        "Method      soft_prompt, 1,920 trainable parameters",
        "Model       tinyworld_small, 2,000,000 parameters",
        "Optimizer   adafactor, learning rate 0.3",
        "Task        rte: 2,000 training examples, 400 validation examples; "
        "labels: a (1,200), b (800)",
        "Lengths     inputs 64, targets 4 tokens; truncated: 12 inputs of rte train",
        "Batch       32 examples; 300 steps, 4.8 epochs",
        "Precision   float32 weights, float32 activations",
        "Devices     1 x cpu",
        "Run folder  runs/x/",
    ]


def test_a_mixture_and_a_warning():
    facts = dataclasses.replace(
        FACTS, tasks=["one: 5.", "two: 6."], cut={}, epochs=None, warnings=["odd."]
    )
    lines = start_block(facts).splitlines()
    assert lines[3:5] == ["Task        one: 5", "            two: 6"]
    assert "Lengths     inputs 64, targets 4 tokens; nothing was truncated" in lines
    assert "Batch       32 examples; 300 steps" in lines
    assert lines[-1] == "Warning: odd."


def test_a_thousand_tasks_are_cut_at_ten():
    facts = dataclasses.replace(FACTS, tasks=[f"t{i}: 5." for i in range(1000)])
    lines = start_block(facts).splitlines()
    assert lines[12:14] == ["            t9: 5", "            and 990 more tasks"]


def test_learning_rates_in_words():
    assert learning_rate_text(adafactor(0.3), 100) == "0.3"
    schedule = adamw(linear_warmup(5e-4, warmup_steps=10))
    assert learning_rate_text(schedule, 100) == "rising from 5e-05 to 0.0005"
    falling = adamw(lambda count: 0.1 / (count + 1))
    assert learning_rate_text(falling, 10) == "falling from 0.1 to 0.01"
    hill = adamw(lambda count: 0.1 - 0.01 * abs(count - 5))
    assert learning_rate_text(hill, 11) == "rising from 0.05 to 0.1, then falling to 0.05"
    assert learning_rate_text(adamw(lambda count: 0.1), 1) == "0.1"


def test_a_single_metric_is_said_once():
    assert scores_text({"accuracy": 0.9975}, 0.9975) == "accuracy 0.9975"
    assert scores_text({"loss": 5.04}, -5.04) == "loss 5.0400"
    assert (
        scores_text({"accuracy": 0.5, "f1": 0.7}, 0.6) == "accuracy 0.5000, f1 0.7000, score 0.6000"
    )
    assert scores_text({}, 0.6) == "score 0.6000"
