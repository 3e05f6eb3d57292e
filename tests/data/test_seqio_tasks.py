"""Our tasks are SeqIO tasks: registered, with SeqIO's features, postprocessors and metrics."""

import numpy as np
import pytest

from prompt_tuning.data.batching import eval_batches
from prompt_tuning.data.mixtures import MIXTURES
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tokenized import tokenized

LENGTHS = {"inputs": 64, "targets": 11}


@pytest.fixture(scope="module")
def seqio_tasks():
    from prompt_tuning.data import seqio_tasks

    return seqio_tasks


@pytest.fixture(scope="module")
def seqio():
    from prompt_tuning.data.quiet_tensorflow import seqio

    return seqio


@pytest.fixture
def registered(seqio_tasks, tiny_vocabulary, tiny_superglue):
    names = [name for name in list_tasks() if name.startswith("superglue")]
    seqio_tasks.register(tiny_vocabulary, dict.fromkeys(names, str(tiny_superglue)))
    return names


def test_ids_and_texts_equal_seqios(seqio, t5_vocabulary):
    theirs = t5_vocabulary.seqio()
    assert theirs.vocab_size == len(t5_vocabulary)
    for text in (
        "hypothesis: A cat sat. premise: Überraschung, 日本!",
        "two  spaces, a tab\tand a\nline break ",
        "<extra_id_0> fox <extra_id_1> <unk> </s>",
        "",
    ):
        ids = t5_vocabulary.encode(text)
        assert ids == theirs.encode(text) == theirs.encode_tf(text).numpy().tolist()
        assert t5_vocabulary.decode(ids) == theirs.decode(ids)
    rng = np.random.default_rng(0)
    for ids in rng.integers(0, 32_128, (50, 20)).tolist():
        assert t5_vocabulary.decode(ids) == theirs.decode(ids)


def test_everything_is_registered_and_can_be_again(seqio, seqio_tasks, registered, tiny_vocabulary):
    seqio_tasks.register(tiny_vocabulary)
    assert set(list_tasks()) <= set(seqio.TaskRegistry.names())
    assert set(MIXTURES) <= set(seqio.MixtureRegistry.names())


def test_batches_equal_seqios_features(
    seqio, registered, tiny_vocabulary, tiny_superglue, tmp_path
):
    """The four features of SeqIO's encoder-decoder converter, padding aside."""
    dataset = seqio.get_dataset(
        "superglue_rte",
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=False),
        dataset_split="validation",
        shuffle=False,
    )
    theirs = list(dataset.as_numpy_iterator())
    split = tokenized(
        get_task("superglue_rte"),
        "validation",
        vocabulary=tiny_vocabulary,
        lengths=LENGTHS,
        data_dir=str(tiny_superglue),
        cache_dir=tmp_path,
    )
    compared = 0
    for batch, rows in eval_batches(split, batch_size=2):
        assert set(batch) == set(theirs[0])
        for row, example in enumerate(rows):
            for name, array in batch.items():
                want = theirs[example][name]
                got = np.pad(array[row], (0, max(0, len(want) - array.shape[1])))
                np.testing.assert_array_equal(got[: len(want)], want, err_msg=name)
                assert not got[len(want) :].any()
                compared += 1
    assert compared == 4 * len(theirs) == 12


@pytest.mark.parametrize("name", ["superglue_wsc", "superglue_record", "superglue_cb"])
def test_seqios_postprocessing_and_metrics(seqio, registered, tiny_superglue, name):
    """What SeqIO's evaluator does with a task: targets and predictions through its functions."""
    task = seqio.TaskRegistry.get(name)
    dataset = task.get_dataset(LENGTHS, "validation", shuffle=False)
    examples = list(dataset.as_numpy_iterator())
    targets = [task.postprocess_fn("", example=e, is_target=True) for e in examples]
    answers = [e["targets_pretokenized"].decode() for e in examples]
    predictions = [
        task.postprocess_fn(answer, example=e, is_target=False)
        for answer, e in zip(answers, examples, strict=True)
    ]
    (metric_fn,) = task.metric_fns
    ours = get_task(name)
    metadata = [
        {"targets": e.targets, **e.metadata}
        for e in ours.examples("validation", str(tiny_superglue))
    ]
    assert targets == metadata
    assert metric_fn(targets, predictions) == ours.evaluate(metadata, answers)
