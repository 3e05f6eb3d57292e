"""Mixtures: T5's rates, names, and the token streams of several tasks mixed."""

import numpy as np
import pytest

from prompt_tuning.data.batching import BatchStream
from prompt_tuning.data.mixtures import (
    MIXTURES,
    get_tasks,
    mixture_of,
    proportional_rates,
    user_mixture,
)
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tokenized import tokenized
from prompt_tuning.errors import UserError

# Rendered training examples of the official files, as T5's mixture lists them: ReCoRD's are
# answers, WSC's the positive ones.
T5_COUNTS = {
    "boolq": 9_427,
    "cb": 250,
    "copa": 400,
    "multirc": 27_243,
    "record": 138_854,
    "rte": 2_490,
    "wic": 5_428,
    "wsc": 259,
}


def test_a_mixture_is_the_eight_tasks():
    names = [task.name for task in get_tasks("superglue")]
    assert names == [f"superglue_{name}" for name in T5_COUNTS]
    assert [task.name for task in get_tasks("tinyworld_with_name")] == [
        f"tinyworld_{name}_with_name" for name in T5_COUNTS
    ]
    assert [task.name for task in get_tasks("superglue_rte")] == ["superglue_rte"]
    assert [task.name for task in get_tasks("superglue_wsc_and_dpr")] == ["superglue_wsc", "dpr"]
    assert get_tasks("superglue_and_dpr") == (*get_tasks("superglue"), *get_tasks("dpr"))
    with_name = {name for name in MIXTURES if name.endswith("_with_name")}
    without = {f"{name}_with_name" for name in set(MIXTURES) - with_name - {"mrqa"}}
    assert with_name == without


def test_rates_are_proportional_up_to_the_maximum():
    counts = list(T5_COUNTS.values())
    np.testing.assert_allclose(proportional_rates(counts), np.array(counts) / 184_351)
    capped = proportional_rates([10**6, 2**19, 2**18])
    np.testing.assert_allclose(capped, [0.4, 0.4, 0.2])


def test_unknown_name_suggests_tasks_and_mixtures():
    with pytest.raises(UserError, match="Unknown task or mixture 'superglu'.*'superglue'"):
        get_tasks("superglu")


def test_stream_of_all_eight(tiny_superglue, tiny_vocabulary, tmp_path):
    splits = [
        tokenized(
            task,
            "train",
            vocabulary=tiny_vocabulary,
            lengths={"targets": 64},
            data_dir=str(tiny_superglue),
            cache_dir=tmp_path,
        )
        for task in get_tasks("superglue")
    ]
    counts = [len(split) for split in splits]
    assert counts == [2, 3, 2, 3, 3, 3, 2, 1]
    stream = BatchStream(splits, batch_size=4, seed=0, rates=proportional_rates(counts))
    drawn = np.concatenate([stream.examples(step) for step in range(95)])
    np.testing.assert_allclose(np.bincount(drawn[:, 0]), np.array(counts) * 20, atol=8)
    assert stream.batch(3)["encoder_input_tokens"].shape[0] == 4


def test_seqio_mixture_has_the_same_rates(tiny_superglue, tiny_vocabulary):
    from prompt_tuning.data import seqio_tasks
    from prompt_tuning.data.quiet_tensorflow import seqio

    folders = dict.fromkeys(MIXTURES["superglue"], str(tiny_superglue))
    seqio_tasks.register(tiny_vocabulary, folders)
    mixture = seqio.MixtureRegistry.get("superglue")
    rates = [mixture.get_rate(task) for task in mixture.tasks]
    assert [task.name for task in mixture.tasks] == list(MIXTURES["superglue"])
    assert rates == [2, 3, 2, 3, 3, 3, 2, 1]

    dataset = seqio.get_dataset(
        "superglue",
        {"inputs": 64, "targets": 8},
        seqio.EncDecFeatureConverter(pack=False),
        dataset_split="train",
        num_epochs=None,
        seed=0,
        shuffle=False,
    )
    row = next(dataset.as_numpy_iterator())
    assert row["encoder_input_tokens"].shape == (64,)


def test_a_mixture_of_ones_own():
    mixture = user_mixture("mine", ["tinyworld_rte", get_task("tinyworld_wic")], [3, 1])
    assert [task.name for task in mixture.tasks] == ["tinyworld_rte", "tinyworld_wic"]
    assert mixture.rates == (3, 1) and mixture_of(mixture) is mixture
    assert mixture_of("superglue").tasks == get_tasks("superglue")
    assert mixture_of(mixture.tasks[0]).name == "tinyworld_rte"
    with pytest.raises(UserError, match="two tasks named 'tinyworld_rte'; set their names"):
        user_mixture("mine", ["tinyworld_rte", "tinyworld_rte"])
    for rates in ([1], [1, 0]):
        with pytest.raises(UserError, match=r"rates are \[1.*; expected a number above 0 for each"):
            user_mixture("mine", ["tinyworld_rte", "tinyworld_wic"], rates)
