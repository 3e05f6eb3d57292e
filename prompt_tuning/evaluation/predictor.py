"""Answers of one frozen model with many prompts per batch (Lester et al., 2021, Figure 2).

    predictor = Predictor(config, params, vocabulary, prompts={"rte": rte, "wsc": wsc})
    answers = predictor.predict(
        [Example(prompt="rte", inputs="..."), Example(prompt="wsc", inputs="...")]
    )

Examples with any prompts and prompt lengths share a batch; each row has its own prompt. Shorter
prompts are padded on the left, and the padding is masked. T5's positions are relative, and those
within `[P; X]` don't change with padding, so a row's result doesn't depend on the batch, up to the
order of float additions. Other methods provide an `Injection`; examples with different slots, or
with weights of the model itself, are batched separately.

Batches have few shapes, compiled once each: rows are a power of two, inputs a power of two times
16 tokens, prompts a multiple of 8. A prompt's own labels are ranked without padding; others are
padded to 4, 16 or 64 labels, and to 8 tokens or the maximum answer length. `serving/` serves a
predictor over HTTP.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32, Key

from prompt_tuning.data.questions import Question, text_of
from prompt_tuning.data.shortening import fit_inputs
from prompt_tuning.data.tables import check_characters
from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError, did_you_mean, listed
from prompt_tuning.evaluation.answerer import Answerer
from prompt_tuning.evaluation.rank import RankOptions
from prompt_tuning.models.config import ModelConfig
from prompt_tuning.models.decoding import DecodingOptions
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.families import model_of
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections, with_prompt_length
from prompt_tuning.models.t5 import Params
from prompt_tuning.parallel.mesh import DATA_AXIS, shard_batch

SHORTEST_INPUT = 16
PROMPT_MULTIPLE = 8
FEWEST_LABELS = 4
LABEL_FACTOR = 4
SHORTEST_LABEL = 8

Shape = tuple[int, ...]


class UnknownPrompt(UserError):
    """An example names a prompt that isn't loaded."""


class EmptyExample(UserError):
    """All fields of an example are empty."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One request.

    Attributes:
      prompt: the name of the prompt to answer with.
      inputs: the text in the format of the prompt's task, or a row, which that task formats.
      labels: the labels to rank; the answer is the likeliest. If empty, the answer is generated; if
        None, the labels are those with which the prompt was added.
    """

    prompt: str
    inputs: str | Mapping[str, Any]
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one request.

    Attributes:
      text: the generated text, or the likeliest label.
      scores: the log-likelihood of each label in nats (see `evaluation/rank.py`), empty without
        labels.
      truncated: whether the inputs were truncated to the maximum length.
    """

    text: str
    scores: Mapping[str, float]
    truncated: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedPrompt:
    """A prompt, or another method's injection, added by `Predictor.add`.

    Attributes:
      injection: with batch axes of 1; NumPy arrays, except weights of the model.
      form: the form of its targets.
      task: formats rows as text; None if unknown.
      labels: the labels to rank unless an example has its own.
      label_ids: their token ids, [labels, target].
    """

    injection: Injection
    form: TargetForm
    task: Task | None
    labels: tuple[str, ...]
    label_ids: Int[np.ndarray, "labels target"] | None

    @property
    def length(self) -> int:
        """The number of virtual tokens before the input."""
        prompt = self.injection.encoder_prompt
        return 0 if prompt is None else prompt.shape[1]

    @functools.cached_property
    def slots(self) -> tuple[Any, ...]:
        """A key that is equal for prompts whose examples can share a batch."""
        # Weights of the model itself apply to a whole batch.
        apart = id(self) if self.injection.weights else 0
        return str(jax.tree.structure(self.injection)), self.form.sentinel, apart


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An example ready for a batch; it keeps its prompt even if that is replaced or removed.

    Attributes:
      ids: the input's token ids with end of sequence.
      prompt: the prompt to answer with.
      labels: the labels to rank and their padded token ids [labels, target]; () and None to
        generate.
      number: the example's index, which determines sampling.
      truncated: whether the inputs were truncated.
    """

    ids: Int32[np.ndarray, "source"]
    prompt: LoadedPrompt
    labels: tuple[str, ...]
    label_ids: Int[np.ndarray, "labels target"] | None
    number: int
    truncated: bool

    @property
    def label_shape(self) -> Shape:
        """The padded number of labels and their length in tokens; () to generate."""
        return () if self.label_ids is None else self.label_ids.shape

    @property
    def shape(self) -> Shape:
        """The padded lengths of the prompt and of the input, in tokens."""
        return (
            -(-self.prompt.length // PROMPT_MULTIPLE) * PROMPT_MULTIPLE,
            _smallest_power(2, SHORTEST_INPUT, len(self.ids)),
        )


class Predictor:
    """Answers examples, each with the prompt that it names.

    Any thread may call `prepare`, and prompts may be added and removed during `run`.

    Args:
      config: the model's architecture, from `load_frozen`.
      params: its weights, from `load_frozen`.
      vocabulary: the vocabulary it was pre-trained with.
      prompts: the initial prompts; see `add`.
      batch_size: maximum number of examples in a batch.
      max_input_length: maximum length of inputs in tokens, end of sequence included; longer
        inputs are truncated.
      decoding: how to generate.
      ranking: how the scores of labels are corrected.
      seed: for sampling.
      mesh: devices that store the weights and share the rows of a batch.
      model: the network, if not `model_of(config)`, for example with sharding constraints.

    Raises:
      UserError: an option is out of range, or a prompt doesn't fit the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        vocabulary: Vocabulary,
        *,
        prompts: Mapping[str, Float[Array | np.ndarray, "_ _"] | Injection] = MappingProxyType({}),
        batch_size: int = 32,
        max_input_length: int = 512,
        decoding: DecodingOptions = DecodingOptions(),
        ranking: RankOptions = RankOptions(),
        seed: int = 0,
        mesh: Mesh | None = None,
        model: FrozenModel | None = None,
    ):
        for name, value in {"batch_size": batch_size, "max_input_length": max_input_length}.items():
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1.")
        self.config = config
        self.vocabulary = vocabulary
        self.batch_size = batch_size
        self.max_input_length = max_input_length
        self._decoding = decoding
        self._ranking = ranking
        self._seed = seed
        self._mesh = mesh
        self._model = model_of(config) if model is None else model
        self._params = params
        self._shapes: set[Shape] = set()
        self._prompts: dict[str, LoadedPrompt] = {}
        for name, prompt in prompts.items():
            self.add(name, prompt)

    @property
    def prompts(self) -> Mapping[str, Injection]:
        """The loaded prompts by name."""
        return {name: prompt.injection for name, prompt in self._prompts.items()}

    @property
    def shapes(self) -> frozenset[Shape]:
        """The compiled shapes: rows, prompt, input, and the labels' number and length."""
        return frozenset(self._shapes)

    def add(
        self,
        name: str,
        prompt: Float[Array | np.ndarray, "..."] | Injection,
        *,
        task: Task | None = None,
        labels: Sequence[str] = (),
        target_sentinel: bool = False,
    ) -> LoadedPrompt:
        """Adds a prompt, replacing one of the same name.

        Args:
          name: the name that examples use.
          prompt: an array [prompt, embed], or a method's injection with batch axes of 1.
          task: formats rows as text; it shortens its column `shorten`, if any, of inputs that are
            too long.
          labels: the labels to rank unless an example has its own.
          target_sentinel: whether it was trained with a sentinel before the targets, as its file
            records; answers don't contain it.

          Raises:
            UserError: its values aren't finite, its width isn't the model's, or a label can't be
              spelled.
        """
        if isinstance(prompt, Injection):
            injection = prompt if prompt.weights else jax.tree.map(np.asarray, prompt)
        else:
            array = self._checked(name, prompt)[None]
            injection = Injection(encoder_prompt=array)  # pyright: ignore[reportArgumentType]
        form = TargetForm(self.vocabulary, target_sentinel)
        loaded = LoadedPrompt(
            injection=injection,
            form=form,
            task=task and fit_inputs(task, self.vocabulary, self.max_input_length),
            labels=tuple(labels),
            label_ids=form.encode_labels(labels) if labels else None,
        )
        # A new mapping, since other threads may be reading the current one.
        self._prompts = {**self._prompts, name: loaded}
        return loaded

    def _checked(
        self, name: str, prompt: Float[Array | np.ndarray, "..."]
    ) -> Float32[np.ndarray, "prompt embed"]:
        array = np.array(prompt, np.float32)
        width = self.config.embed_dim
        if array.ndim != 2 or not len(array) or array.shape[1] != width:
            raise UserError(
                f"The prompt '{name}' has shape {list(array.shape)}; expected [length, {width}], "
                f"as wide as the model '{self.config.name}'."
            )
        if not np.isfinite(array).all():
            raise UserError(f"The prompt '{name}' has values that are NaN or infinite.")
        return array

    def remove(self, name: str) -> None:
        """Removes a prompt.

        Raises:
          UnknownPrompt: no prompt has this name.
        """
        self.prompt(name)
        self._prompts = {other: it for other, it in self._prompts.items() if other != name}

    def prompt(self, name: str) -> LoadedPrompt:
        """Returns the prompt with this name.

        Raises:
          UnknownPrompt: there is none.
        """
        prompts = self._prompts
        if name not in prompts:
            known = (
                f" The loaded prompts are {listed(sorted(prompts))}."
                if prompts
                else " No prompt is loaded."
            )
            raise UnknownPrompt(f"Unknown prompt '{name}'.{did_you_mean(name, prompts) or known}")
        return prompts[name]

    def predict(self, examples: Sequence[Example]) -> list[Answer]:
        """Returns the answers in the order of the examples.

        Raises:
          UserError: see `prepare`.
        """
        return self.run(
            [
                self.prepare(example, number=number, where=f"example {number + 1}")
                for number, example in enumerate(examples)
            ]
        )

    def prepare(self, example: Example, *, number: int = 0, where: str = "example") -> Prepared:
        """Looks up the prompt and tokenizes the text.

        Args:
          example: the request.
          number: the example's index; with the seed, it determines sampling.
          where: the example's name in errors.

        Raises:
          UnknownPrompt: no prompt has the name.
          EmptyExample: it is a row whose fields are empty.
          UserError: a row lacks a field; or a label can't be spelled, is a duplicate, or is longer
            than the maximum answer.
        """
        prompt = self.prompt(example.prompt)
        text = _text(example, prompt.task, where)
        ids, truncated = self.vocabulary.encode_inputs(text, self.max_input_length)
        labels, label_ids = prompt.labels, prompt.label_ids
        if example.labels not in (None, labels):
            labels = example.labels
            label_ids = prompt.form.before(self._label_ids(labels, where)) if labels else None
        return Prepared(
            ids=np.asarray(ids, np.int32),
            prompt=prompt,
            labels=labels,
            label_ids=label_ids,
            number=number,
            truncated=truncated,
        )

    def run(self, examples: Sequence[Prepared]) -> list[Answer]:
        """Returns the answers in the order of the examples, which share batches if possible."""
        answers: dict[int, Answer] = {}

        def together(i: int) -> tuple[Any, ...]:
            example = examples[i]
            return example.labels, example.label_shape, example.prompt.slots

        order = sorted(range(len(examples)), key=lambda i: (together(i), examples[i].shape))
        for _, group in itertools.groupby(order, key=together):
            while indices := list(itertools.islice(group, self.batch_size)):
                found = self._answer([examples[i] for i in indices])
                answers.update(zip(indices, found, strict=True))
        return [answers[i] for i in range(len(examples))]

    def _answer(self, rows: Sequence[Prepared]) -> list[Answer]:
        first = rows[0]
        form, label_ids = first.prompt.form, first.label_ids
        # The sentinel doesn't count toward the maximum length.
        longest = self._decoding.max_length + len(form.prefix)
        decoding = dataclasses.replace(self._decoding, max_length=longest)
        answerer = Answerer(
            model=self._model,
            frozen=self._params,
            options=decoding if label_ids is None else self._ranking,
            decode=form.decode,
            labels=first.labels,
            label_ids=label_ids,
        )
        tokens, injection, keys = self._batch(rows)
        longest_prompt = max(row.shape[0] for row in rows)
        self._shapes.add((len(tokens), longest_prompt, tokens.shape[1], *first.label_shape))
        (choices,), scores = answerer.answer([injection], tokens, keys)
        return [
            Answer(
                text=answerer.text(choices[i]),
                scores={}
                if scores is None
                else dict(zip(row.labels, scores[0, i].tolist(), strict=False)),
                truncated=row.truncated,
            )
            for i, row in enumerate(rows)
        ]

    def _batch(
        self, rows: Sequence[Prepared]
    ) -> tuple[Int[Array | np.ndarray, "batch source"], Injection, Key[Array, "batch"] | None]:
        """Returns padded inputs and prompts, and keys for sampling.

        The first row is repeated to complete the batch.
        """
        shares = 1 if self._mesh is None else self._mesh.shape[DATA_AXIS]
        size = min(_smallest_power(2, shares, len(rows)), self.batch_size)
        prompt_length, input_length = np.max([row.shape for row in rows], axis=0)
        length = min(input_length, self.max_input_length)
        tokens = np.full((size, length), self.vocabulary.pad_id, np.int32)
        padded = [*rows, *itertools.repeat(rows[0], size - len(rows))]
        for row, ids in zip(padded, tokens, strict=True):
            ids[: len(row.ids)] = row.ids
        keys = None
        if self._decoding.method == "sample":
            numbers = np.array([row.number for row in padded], np.uint32)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(self._seed), numbers)
        injection = rows[0].prompt.injection
        # Slots of layers are large, so a batch with one prompt shares them on a batch axis of 1.
        shared = injection.encoder_prompt is None or injection.weights
        if not shared or any(row.prompt is not rows[0].prompt for row in rows):
            injection = batch_injections(
                [with_prompt_length(row.prompt.injection, int(prompt_length)) for row in padded]
            )
        return tokens if self._mesh is None else shard_batch(tokens, self._mesh), injection, keys

    def _label_ids(self, labels: tuple[str, ...], where: str) -> Int[np.ndarray, "labels target"]:
        """Returns the labels' ids, padded to one of few shapes, whatever labels clients send.

        The last label is repeated; padding tokens don't count in a label's score.
        """
        if len(set(labels)) < len(labels):
            raise UserError(f"{where}: the labels {list(labels)} have a duplicate.")
        ids = self.vocabulary.encode_labels(labels)
        number, length = ids.shape
        longest = self._decoding.max_length
        if length > longest:
            raise UserError(
                f"{where}: a label has {length} tokens, including end of sequence; answers have "
                f"at most {longest}."
            )
        more = _smallest_power(LABEL_FACTOR, FEWEST_LABELS, number) - number
        longer = (longest if length > SHORTEST_LABEL else min(SHORTEST_LABEL, longest)) - length
        ids = np.pad(ids, ((0, 0), (0, longer)), constant_values=self.vocabulary.pad_id)
        return np.pad(ids, ((0, more), (0, 0)), mode="edge")


def _text(example: Example, task: Task | None, where: str) -> str:
    """Returns the model's input text.

    Raises:
      EmptyExample: it is a row whose fields are empty.
      UserError: a row lacks a field, or there is no task to format it.
    """
    inputs = example.inputs
    if not isinstance(inputs, str):
        if not isinstance(inputs, Mapping):
            raise UserError(f"{where} is {inputs!r}; expected a string, or a dict by column.")
        if task is None and "inputs" not in inputs:
            raise UserError(
                f'{where}: no "inputs", and the file of the prompt "{example.prompt}" names no '
                "task to format the other fields."
            )
        text = text_of(Question(row=dict(inputs), where=where), task)
        if text is None:
            raise EmptyExample(f"{where}: the fields are empty; give the text to answer.")
        inputs = text
    try:
        check_characters(inputs)
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    return inputs


def _smallest_power(factor: int, smallest: int, least: int) -> int:
    """Returns the smallest `smallest * factor**n` that is at least `least`."""
    while smallest < least:
        smallest *= factor
    return smallest
