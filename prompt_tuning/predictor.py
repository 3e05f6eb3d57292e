"""One frozen model answering for many prompts at once (Lester et al., 2021, Figure 2).

    predictor = Predictor(config, params, vocabulary, prompts={"rte": rte, "wsc": wsc})
    answers = predictor.predict(
        [Example(prompt="rte", inputs="..."), Example(prompt="wsc", inputs="...")]
    )

Examples of any prompts and prompt lengths share a batch, each row with its own prompt in front.
A shorter prompt is filled up on its left, and the filling is hidden from attention. Distances are
all that T5 knows of positions, and those within `[P; X]` stay what they are without the filling,
so a row computes what it would alone; only the order of float additions depends on the shape of
the batch. What other methods have trained is given as an `Injection`; examples of methods with
different slots are batched apart.

Batches come in few shapes, compiled once each: rows are a power of two, inputs a power of two
times 16 tokens, prompts a multiple of 8, labels to be ranked 4, 16 or 64, of 8 tokens or the
longest answer's. Serving over HTTP is in `serving/`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int, Int32

from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.vocabularies import EOS_ID, PAD_ID, Vocabulary
from prompt_tuning.errors import UserError, did_you_mean, listed
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections, with_prompt_length
from prompt_tuning.models.t5 import T5, Params
from prompt_tuning.parallel.mesh import DATA_AXIS, shard_batch

SHORTEST_INPUT = 16
PROMPT_MULTIPLE = 8
FEWEST_LABELS = 4
LABEL_FACTOR = 4
SHORTEST_LABEL = 8

Shape = tuple[int, ...]


class UnknownPrompt(UserError):
    """An example names a prompt that isn't loaded."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """What is asked.

    Attributes:
      prompt: the name of the prompt to answer with.
      inputs: the text, as the prompt's task writes it.
      labels: to be ranked; the answer is the likeliest. Without any the answer is generated.
    """

    prompt: str
    inputs: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is answered.

    Attributes:
      text: the generated text, or the likeliest label.
      scores: the log-likelihood of each label in nats (see `evaluation/rank.py`), empty without
        labels.
      truncated: whether the inputs were cut to the longest length.
    """

    text: str
    scores: Mapping[str, float]
    truncated: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An example ready for a batch; it keeps its prompt, whatever is loaded or removed since.

    `slots` tells which slots the injection fills: those of one batch are alike. `form` is how the
    prompt's answers are written.
    """

    ids: Int32[np.ndarray, "source"]
    injection: Injection
    slots: str
    form: TargetForm
    labels: tuple[str, ...]
    truncated: bool

    @property
    def shape(self) -> Shape:
        """The padded lengths of the prompt and of the input, in tokens."""
        return (
            -(-prompt_length(self.injection) // PROMPT_MULTIPLE) * PROMPT_MULTIPLE,
            _doubled(SHORTEST_INPUT, len(self.ids)),
        )


class Predictor:
    """Answers examples, each with the prompt that it names.

    `prepare` may be called from any thread, and prompts may come and go while `run` is at work.

    Args:
      config: the model's sizes, as `load_frozen` gives them with
      params: its weights.
      vocabulary: the one it was pre-trained with.
      prompts: what examples may name; see `add`.
      batch_size: the most examples in one batch.
      max_input_length: longer inputs are cut to so many tokens, end of sequence counted.
      decoding: how to generate, greedily or by beam search.
      mesh: devices that hold the weights and among which a batch is shared out.

    Raises:
      UserError: an option is out of range, or a prompt doesn't fit the model.
    """

    def __init__(
        self,
        config: T5Config,
        params: Params,
        vocabulary: Vocabulary,
        *,
        prompts: Mapping[str, Float[Array | np.ndarray, "_ _"] | Injection] = MappingProxyType({}),
        batch_size: int = 32,
        max_input_length: int = 512,
        decoding: DecodingOptions = DecodingOptions(),
        mesh: Mesh | None = None,
    ):
        for name, value in {"batch_size": batch_size, "max_input_length": max_input_length}.items():
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1.")
        if decoding.method == "sample":
            raise UserError(
                "A predictor can't sample: what is drawn would depend on the other examples of a "
                "batch. Set the decoding method to 'greedy' or 'beam'."
            )
        self.config = config
        self.vocabulary = vocabulary
        self.batch_size = batch_size
        self.max_input_length = max_input_length
        self._params = params
        self._decoding = decoding
        self._mesh = mesh
        self._model = T5(config)
        self._shapes: set[Shape] = set()
        self._prompts: dict[str, tuple[Injection, TargetForm]] = {}
        for name, prompt in prompts.items():
            self.add(name, prompt)

    @property
    def prompts(self) -> Mapping[str, Injection]:
        """What examples may name."""
        return {name: injection for name, (injection, _) in self._prompts.items()}

    @property
    def shapes(self) -> frozenset[Shape]:
        """The shapes compiled so far: rows, prompt, input, and the labels' number and length."""
        return frozenset(self._shapes)

    def add(
        self,
        name: str,
        prompt: Float[Array | np.ndarray, "..."] | Injection,
        *,
        target_sentinel: bool = False,
    ) -> None:
        """Takes in a prompt, in place of one of the same name.

        Args:
          name: what examples call it.
          prompt: an array [prompt, embed], or what a method injects, with batch axes of 1.
          target_sentinel: whether it was trained with a sentinel before the targets, as its file
            tells; answers come without it.

        Raises:
          UserError: it isn't finite or as wide as the model, or is a set of weights.
        """
        if isinstance(prompt, Injection):
            injection = jax.tree.map(np.asarray, prompt)
            if injection.weights:
                raise UserError(
                    f"'{name}' holds weights of the model itself, which examples of one batch "
                    "can't have of their own; use it by itself, or merge it into the model."
                )
        else:
            array = self._checked(name, prompt)[None]
            injection = Injection(encoder_prompt=array)  # pyright: ignore[reportArgumentType]
        form = TargetForm(self.vocabulary, target_sentinel)
        # Another mapping rather than a changed one: other threads may be reading this one.
        self._prompts = {**self._prompts, name: (injection, form)}

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
        """Lets a prompt go.

        Raises:
          UnknownPrompt: there is none of this name.
        """
        self._prompt(name)
        self._prompts = {other: it for other, it in self._prompts.items() if other != name}

    def predict(self, examples: Sequence[Example]) -> list[Answer]:
        """Returns the answers in the order of the examples.

        Raises:
          UserError: see `prepare`.
        """
        return self.run([self.prepare(example) for example in examples])

    def prepare(self, example: Example) -> Prepared:
        """Looks up the prompt and makes token ids of the text.

        Raises:
          UnknownPrompt: no prompt has the name.
          UserError: a label can't be spelled, is there twice, or is longer than an answer may be.
        """
        injection, form = self._prompt(example.prompt)
        ids = self.vocabulary.encode(example.inputs)
        kept = [*ids[: self.max_input_length - 1], EOS_ID]
        if example.labels:
            self._encode_labels(example.labels)
        return Prepared(
            ids=np.asarray(kept, np.int32),
            injection=injection,
            slots=str(jax.tree.structure(injection)),
            form=form,
            labels=example.labels,
            truncated=len(kept) <= len(ids),
        )

    def run(self, examples: Sequence[Prepared]) -> list[Answer]:
        """Returns the answers in the order of the examples, which share batches where they can."""
        answers: dict[int, Answer] = {}

        def together(i: int) -> tuple[tuple[str, ...], str, bool]:
            return examples[i].labels, examples[i].slots, examples[i].form.sentinel

        order = sorted(range(len(examples)), key=lambda i: (together(i), examples[i].shape))
        for (labels, *_), group in itertools.groupby(order, key=together):
            while indices := list(itertools.islice(group, self.batch_size)):
                found = self._answer([examples[i] for i in indices], labels)
                answers.update(zip(indices, found, strict=True))
        return [answers[i] for i in range(len(examples))]

    def _answer(self, rows: Sequence[Prepared], labels: tuple[str, ...]) -> list[Answer]:
        tokens, injection = self._batch(rows)
        shape = (len(tokens), prompt_length(injection), tokens.shape[1])
        form = rows[0].form
        if not labels:
            self._shapes.add(shape)
            # The sentinel takes no room from an answer.
            longest = self._decoding.max_length + len(form.prefix)
            decoding = dataclasses.replace(self._decoding, max_length=longest)
            ids = generate(self._model, self._params, tokens, injection, decoding)
            texts = [form.decode(row.tolist()) for row in np.asarray(ids)]
            return [
                Answer(text=text, scores={}, truncated=row.truncated)
                for row, text in zip(rows, texts, strict=False)
            ]
        label_ids = form.before(self._encode_labels(labels))
        self._shapes.add((*shape, *label_ids.shape))
        scores = _label_scores(self._model, self._params, tokens, injection, label_ids)
        answers = []
        for row, values in zip(rows, np.asarray(scores), strict=False):
            by_label = dict(zip(labels, values.tolist(), strict=False))
            best = max(by_label, key=by_label.__getitem__)
            answers.append(Answer(text=best, scores=by_label, truncated=row.truncated))
        return answers

    def _batch(self, rows: Sequence[Prepared]) -> tuple[Int[Array, "batch source"], Injection]:
        """Returns the padded inputs and prompts; the first row is repeated to fill up the batch."""
        shares = 1 if self._mesh is None else self._mesh.shape[DATA_AXIS]
        size = min(_doubled(shares, len(rows)), self.batch_size)
        longest_prompt, input_length = np.max([row.shape for row in rows], axis=0)
        tokens = np.full((size, min(input_length, self.max_input_length)), PAD_ID, np.int32)
        filled = [*rows, *itertools.repeat(rows[0], size - len(rows))]
        for row, place in zip(filled, tokens, strict=True):
            place[: len(row.ids)] = row.ids
        injection = batch_injections(
            [with_prompt_length(row.injection, int(longest_prompt)) for row in filled]
        )
        # Unlike `jnp.asarray`, this compiles nothing.
        batch = jax.device_put((tokens, injection))
        return batch if self._mesh is None else shard_batch(batch, self._mesh)

    def _encode_labels(self, labels: tuple[str, ...]) -> Int[np.ndarray, "labels target"]:
        """Returns the labels' ids, filled up to one of few shapes, which a client can't add to.

        There are so many more labels, the last one over again, and so many more tokens of padding,
        which count for nothing in a label's score.
        """
        if len(set(labels)) < len(labels):
            raise UserError(f"The labels {list(labels)} hold one of them twice.")
        ids = self.vocabulary.encode_labels(labels)
        number, length = ids.shape
        longest = self._decoding.max_length
        if length > longest:
            raise UserError(
                f"A label has {length} tokens, end of sequence counted; answers have at most "
                f"{longest}."
            )
        more = _multiplied(FEWEST_LABELS, LABEL_FACTOR, number) - number
        longer = (longest if length > SHORTEST_LABEL else min(SHORTEST_LABEL, longest)) - length
        ids = np.pad(ids, ((0, 0), (0, longer)), constant_values=PAD_ID)
        return np.pad(ids, ((0, more), (0, 0)), mode="edge")

    def check_prompt(self, name: str) -> None:
        """Raises `UnknownPrompt` unless a prompt of this name is loaded."""
        self._prompt(name)

    def _prompt(self, name: str) -> tuple[Injection, TargetForm]:
        prompts = self._prompts
        if name not in prompts:
            known = f" Loaded are {listed(sorted(prompts))}." if prompts else " None is loaded."
            raise UnknownPrompt(
                f"No prompt is called '{name}'.{did_you_mean(name, prompts) or known}"
            )
        return prompts[name]


@functools.partial(jax.jit, static_argnames=("model",))
def _label_scores(
    model: T5,
    frozen: Params,
    tokens: Int[Array, "batch source"],
    injection: Injection,
    label_ids: Int[Array, "labels target"],
) -> Float[Array, "batch labels"]:
    return label_log_likelihoods(model, frozen, tokens, injection, label_ids)


def prompt_length(injection: Injection) -> int:
    """Returns the virtual tokens in front of the input."""
    return 0 if injection.encoder_prompt is None else injection.encoder_prompt.shape[1]


def _doubled(smallest: int, least: int) -> int:
    """Returns the first of `smallest`, its double, and so on that is at least `least`."""
    return _multiplied(smallest, 2, least)


def _multiplied(smallest: int, factor: int, least: int) -> int:
    """Returns the first of `smallest`, `factor` times it, and so on that is at least `least`."""
    while smallest < least:
        smallest *= factor
    return smallest
