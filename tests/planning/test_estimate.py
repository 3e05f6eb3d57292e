"""Does it fit, how long does it take, and what helps."""

import dataclasses

import pytest

from prompt_tuning.parallel.accelerators import Accelerator
from prompt_tuning.planning import estimate
from prompt_tuning.planning.estimate import changes, find_fit, fits, seconds_of
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
        clock=1e9,
    )
    return Machine(accelerator=accelerator, devices=devices)


def test_without_a_compiler_products_run_at_half_the_peak(work, needs):
    traffic = Traffic(kind="all-reduce", along="model", times=1, bytes=7, sent=7e7)
    analysis = dataclasses.replace(needs.analysis, flops=4 * 10**12)
    needs = dataclasses.replace(needs, analysis=analysis, traffic=(traffic,))
    seconds = seconds_of(needs, work, machine(1e9))
    assert (seconds.compute, seconds.communication) == pytest.approx((8, 0.7))
    assert seconds.step == pytest.approx(8.7) and seconds.pallas == 0

    wide = dataclasses.replace(
        work, compute=dataclasses.replace(work.compute, compute_dtype="float32")
    )
    assert seconds_of(needs, wide, machine(1e9)).compute == pytest.approx(16)


def test_it_fits_or_not_at_the_usable_share(needs):
    enough = needs.memory / estimate.USABLE
    assert fits(needs, machine(1.001 * enough))
    assert not fits(needs, machine(0.999 * enough))


def test_what_a_compiler_of_tpus_does_not_refuse_fits(needs):
    tpu = dataclasses.replace(needs, compiler="tpu")
    assert fits(tpu, machine(1.001 * needs.memory))
    refused = dataclasses.replace(tpu, refusal="The compiler refuses it.", analysis=None)
    assert not fits(refused, machine(2.0 * needs.memory))


def test_a_refused_step_has_no_time_and_says_what_would_fit(
    keeping, keeping_needs, needs, monkeypatch
):
    refused = dataclasses.replace(
        keeping_needs, compiler="tpu", refusal="The compiler refuses it.", analysis=None
    )
    accepted = dataclasses.replace(needs, compiler="tpu")
    monkeypatch.setattr(estimate, "needs_of", lambda work, devices: accepted)
    plan = make_plan(keeping, refused, machine(1e9), 30)
    (attempt,) = plan.attempts
    assert attempt.fits and attempt.seconds == pytest.approx(
        accepted.analysis.seconds(machine(1e9).accelerator)
    )
    text, fields = plan.text(), plan.to_json()
    assert "The compiler refuses it.\n  1. recompute layers" in text and "a step" in text
    assert "time of a step" not in text
    assert fields["seconds"] is fields["hours"] is fields["cycles"] is None


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
    monkeypatch.setattr(estimate, "needs_of", lambda *_: pytest.fail("compiled"))
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
    assert "It fits" in text
    assert "emulated CPU devices" in text and "pip install 'prompt-tuning[cuda]'" in text
    assert fields["compiler"] == "cpu" and fields["parts"] == []
    assert fields["memory"]["memory"] == needs.memory
    assert fields["hours"] == pytest.approx(fields["seconds"]["step"] * 30_000 / 3600)
    assert fields["prompt_length"] == 5
