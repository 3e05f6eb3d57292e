"""Does it fit, how long does it take, and what helps."""

import dataclasses

import pytest

from prompt_tuning.parallel.accelerators import Accelerator
from prompt_tuning.planning import estimate
from prompt_tuning.planning.estimate import Utilisation, changes, find_fit, fits, seconds_of
from prompt_tuning.planning.machines import Machine, find_machine
from prompt_tuning.planning.program import Traffic
from prompt_tuning.planning.report import make_plan


def machine(memory: float, devices: int = 1) -> Machine:
    """One whose devices have so many bytes."""
    accelerator = Accelerator(
        name="small",
        kinds=("small",),
        flops=1e12,
        memory=memory,
        memory_bandwidth=1e9,
        interconnect_bandwidth=1e8,
    )
    return Machine(accelerator=accelerator, devices=devices)


def test_the_longest_of_three_times(work, needs):
    traffic = Traffic(kind="all-reduce", along="model", times=1, bytes=7, sent=7e7)
    needs = dataclasses.replace(needs, flops=4 * 10**12, moved=35 * 10**8, traffic=(traffic,))
    used = Utilisation(compute=0.5, memory=0.7, interconnect=0.7)
    seconds = seconds_of(needs, work, machine(1e9), used)
    assert (seconds.compute, seconds.memory, seconds.interconnect) == pytest.approx((8, 5, 1))
    assert (seconds.step, seconds.limit) == (seconds.compute, "compute")

    wide = dataclasses.replace(
        work, compute=dataclasses.replace(work.compute, compute_dtype="float32")
    )
    assert seconds_of(needs, wide, machine(1e9), used).compute == pytest.approx(16)


def test_it_fits_or_not_at_the_usable_share(needs):
    enough = needs.memory / estimate.USABLE
    assert fits(needs, machine(1.001 * enough))
    assert not fits(needs, machine(0.999 * enough))


def test_what_helps_is_found_by_compiling_it(needs, keeping, keeping_needs):
    assert keeping_needs.memory > needs.memory
    room = machine(1.01 * needs.memory / estimate.USABLE)
    (attempt,) = find_fit(keeping, keeping_needs, room)
    assert "frozen_model.remat=True" in attempt.change
    assert attempt.fits and attempt.kept and attempt.compiled
    assert attempt.memory == needs.memory


def test_weights_that_are_too_much_alone_are_made_less_before_anything_is_compiled(
    work, needs, monkeypatch
):
    monkeypatch.setattr(estimate, "needs_of", lambda work: pytest.fail("compiled"))
    wide = dataclasses.replace(
        work, compute=dataclasses.replace(work.compute, param_dtype="float32", remat=False)
    )
    room = machine(needs.weights / 2)
    (attempt,) = find_fit(wide, needs, room)
    assert "param_dtype=bfloat16" in attempt.change
    assert attempt.memory == needs.weights
    assert attempt.kept and not attempt.fits and not attempt.compiled
    assert "Nothing that was tried fits" in make_plan(wide, needs, room, 30).text()


def test_what_changes_the_result_comes_after_what_does_not(work):
    whole = dataclasses.replace(
        work,
        compute=dataclasses.replace(
            work.compute, param_dtype="float32", compute_dtype="float32", remat=False
        ),
        data_parallel=4,
        batch_size=16,
        input_length=256,
    )
    names = [name.partition("=")[0].rpartition("--gin.")[2] for name, _ in changes(whole)]
    assert names == [
        "frozen_model.remat",
        "FSDP",
        "MODEL_PARALLEL",
        "frozen_model.param_dtype",
        "train.accumulation_steps",
        "train.accumulation_steps",
        "TASK_FEATURE_LENGTHS",
        "TASK_FEATURE_LENGTHS",
    ]
    for name, change in changes(whole):
        changed = change(whole)
        assert changed != whole, name
        assert changed.devices == whole.devices
    assert not [name for name, _ in changes(work) if "FSDP" in name or "MODEL" in name]


def test_the_text_and_the_json_say_the_same(work, needs):
    plan = make_plan(work, needs, find_machine("h200"), 30_000)
    text, fields = plan.text(), plan.to_json()
    assert plan.fits and fields["fits"]
    assert "tiny on 1 x H200: mesh data 1 x model 1, batch 4, prompt 5" in text
    assert "It fits" in text and "emulated CPU devices" in text
    assert fields["device"]["memory"] == needs.memory
    assert fields["hours"] == pytest.approx(fields["seconds"]["step"] * 30_000 / 3600)
    assert fields["prompt_length"] == 5
