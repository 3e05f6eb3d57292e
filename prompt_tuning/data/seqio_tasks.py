"""SeqIO's versions of our tasks and mixtures, and tokenization through them.

Imports TensorFlow, so only `tokenized.py` (on a task's first use) and users of SeqIO import this.
`register` adds every task and mixture to SeqIO's registries under the same names, for
`seqio.get_dataset`, T5X and SeqIO's evaluator.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import numpy as np

from prompt_tuning.data.feature_lengths import FEATURES
from prompt_tuning.data.mixtures import MIXTURES, proportional_rates
from prompt_tuning.data.quiet_tensorflow import seqio, tf
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.vocabularies import Vocabulary


class TokenizedExample(TypedDict):
    """One example of SeqIO, with its numbers of tokens before trimming."""

    inputs: np.ndarray
    targets: np.ndarray
    inputs_full_length: int
    targets_full_length: int
    inputs_pretokenized: bytes
    shortened: bool
    metadata: bytes


def seqio_task(task: Task, vocabulary: Vocabulary, data_dir: str | None = None) -> seqio.Task:
    """Returns the SeqIO task of one of ours: T5's preprocessing of the text rendered by `task`."""
    ids = vocabulary.seqio()
    of_inputs = seqio.Feature(vocabulary=ids, add_eos=vocabulary.ends_inputs)
    of_targets = seqio.Feature(vocabulary=ids, add_eos=True)
    begin = [] if vocabulary.bos_id is None else [_begin_inputs(vocabulary.bos_id)]

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # one file per split; SeqIO shuffles examples
        text = tf.TensorSpec((), tf.string)
        return tf.data.Dataset.from_generator(
            lambda: _text_rows(task, split, data_dir),
            output_signature={
                **dict.fromkeys((*FEATURES, "metadata"), text),
                "shortened": tf.TensorSpec((), tf.bool),
            },
        )

    return seqio.Task(
        task.name,
        source=seqio.FunctionDataSource(dataset_fn, splits=task.splits),
        output_features={"inputs": of_inputs, "targets": of_targets},
        preprocessors=[
            seqio.preprocessors.tokenize,
            *begin,
            _keep_full_lengths(vocabulary.ends_inputs),
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        postprocess_fn=_postprocess,
        # SeqIO inspects the names of the arguments.
        metric_fns=[lambda targets, predictions: task.evaluate(targets, predictions)],
    )


def tokenize(
    task: Task,
    split: str,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int],
    data_dir: str | None = None,
) -> Iterator[TokenizedExample]:
    """Yields the examples of a split, tokenized and trimmed by SeqIO, in the source's order."""
    dataset = seqio_task(task, vocabulary, data_dir).get_dataset(
        sequence_length=dict(lengths), split=split, shuffle=False
    )
    yield from dataset.as_numpy_iterator()


def register(vocabulary: Vocabulary, data_dirs: Mapping[str, str | None] | None = None) -> None:
    """Adds all tasks and mixtures to SeqIO's registries, replacing those of an earlier call.

    Args:
      vocabulary: the vocabulary of their features.
      data_dirs: the data folders of tasks by name; others read their default source.
    """
    data_dirs = data_dirs or {}
    for name in MIXTURES:
        seqio.MixtureRegistry.remove(name)
    for name in list_tasks():
        seqio.TaskRegistry.remove(name)
        task = seqio_task(get_task(name), vocabulary, data_dirs.get(name))
        seqio.TaskRegistry.add_provider(name, task)
    for name, members in MIXTURES.items():
        rate = functools.cache(functools.partial(_rate, data_dirs=data_dirs))
        seqio.MixtureRegistry.add(name, [(member, rate) for member in members])


def _rate(task: seqio.Task, *, data_dirs: Mapping[str, str | None]) -> float:
    count = sum(1 for _ in get_task(task.name).examples("train", data_dirs.get(task.name)))
    return float(proportional_rates([count], normalize=False)[0])


def _text_rows(task: Task, split: str, data_dir: str | None) -> Iterator[dict[str, Any]]:
    for example in task.examples(split, data_dir):
        yield {
            "inputs": example.inputs,
            "targets": example.targets,
            "metadata": json.dumps({"targets": example.targets, **example.scoring_metadata}),
            "shortened": example.shortened,
        }


def _keep_full_lengths(ends_inputs: bool) -> Any:
    """Returns a preprocessor that notes the numbers of tokens, end of sequence included."""
    ends = {"inputs": int(ends_inputs), "targets": 1}

    @seqio.map_over_dataset
    @tf.autograph.experimental.do_not_convert
    def keep(example: dict[str, Any]) -> dict[str, Any]:
        full = {f"{name}_full_length": tf.size(example[name]) + ends[name] for name in FEATURES}
        return {**example, **full}

    return keep


def _begin_inputs(bos_id: int) -> Any:
    """Returns a preprocessor that puts the token before each input."""

    @seqio.map_over_dataset
    @tf.autograph.experimental.do_not_convert
    def begin(example: dict[str, Any]) -> dict[str, Any]:
        inputs = example["inputs"]
        return {**example, "inputs": tf.concat([tf.constant([bos_id], inputs.dtype), inputs], 0)}

    return begin


def _postprocess(output: str, example: Mapping[str, Any], is_target: bool) -> Any:
    """Returns a prediction unchanged, or a target's metadata, which the metrics read."""
    return json.loads(example["metadata"]) if is_target else output
