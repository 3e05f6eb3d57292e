"""A report on one prompt, with tables and figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis import clusters, pictures
from prompt_tuning.analysis.attention import prompt_attention
from prompt_tuning.analysis.neighbors import Neighbor
from prompt_tuning.analysis.removals import score_removals
from prompt_tuning.analysis.tables import Table, report_folder, write_report
from prompt_tuning.data.batching import eval_batches
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.injection import Injection
from prompt_tuning.recipes import scoring
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data

# The attention weights of all layers for this many examples are in memory at once.
_ATTENTION_ROWS = 4

Draw = Callable[[Path], Path]


class Report:
    """Collects tables and figures of a prompt; `write` saves them in a folder.

    Args:
      base: the frozen model.
      data: the prompt's task.
      prediction: how to score the prompt.
      prompt: the prompt.
      neighbors: the pieces nearest to each of its positions.
      title: its name.
      metric: the distance, "cosine" or "euclidean".
      labels: the words that the prompt was initialized with; None is the tasks' labels.
    """

    def __init__(
        self,
        base: Base,
        data: Data,
        prediction: Prediction,
        prompt: Float32[np.ndarray, "prompt embed"],
        neighbors: Sequence[Sequence[Neighbor]],
        *,
        title: str,
        metric: str,
        labels: Sequence[str] | None = None,
    ):
        self._base, self._data, self._prediction, self._prompt = base, data, prediction, prompt
        of_tasks = (label for task in data.tasks for label in task.labels or ())
        self._labels = tuple(dict.fromkeys(of_tasks)) if labels is None else labels
        self._title, self._metric = title, metric
        # The remaining rows are sentinels and unused.
        table = np.asarray(base.embedding)[: base.vocabulary.num_pieces]
        self._table = table.astype(np.float32)
        self.neighbors = neighbors
        self._tables: dict[str, Table] = {}
        self._pictures: dict[str, Draw] = {}
        self._splits: tuple[str, list[TokenizedSplit]] | None = None
        self._add_neighbors(len(neighbors[0]))
        self._add_labels()
        self._add_repeats()
        self._add_norms()

    @property
    def tables(self) -> Mapping[str, Table]:
        """The tables by file name."""
        return self._tables

    def write(self, folder: str) -> Path:
        """Writes the report and returns its path; raises UserError if that fails."""
        to = report_folder(folder)
        drawn = [draw(to / f"{name}.png") for name, draw in self._pictures.items()]
        return write_report(to, f"The prompt {self._title}", self._tables, drawn)

    def add_attention(self) -> None:
        """Measures the attention to the prompt on the development split."""
        split, (examples, *others) = self._development()
        if others:
            raise UserError(
                f"{self._data.name} is a mixture; attention is measured on one task: add the gin "
                "file of one."
            )
        rows = min(_ATTENTION_ROWS, self._data.batch_size)
        batches = (batch for batch, _ in eval_batches(examples, rows, self._data.num_lengths))
        found = prompt_attention(self._base.model, self._base.params, self._prompt, batches)
        first = "prefill" if isinstance(self._base.config, DecoderOnlyConfig) else "encoder"
        kinds = {
            f"{first}, from the input": found.encoder_inputs,
            f"{first}, from the prompt": found.encoder_prompt,
            "decoder, from the target": found.decoder,
        }
        mass = {name: by_position.sum(axis=1) for name, by_position in kinds.items()}
        layers = max(map(len, mass.values()))
        self._tables["attention"] = Table(
            title=f"Share of attention on the prompt, {self._data.name} {split}; uniform "
            f"attention would give {found.even:.3f}.",
            columns=("layer", *mass),
            rows=[
                (
                    layer + 1,
                    *(float(m[layer]) if layer < len(m) else None for m in mass.values()),
                )
                for layer in range(layers)
            ],
        )
        self._tables["attention_by_position"] = Table(
            title="The same for each prompt position, the mean over layers.",
            columns=("position", *kinds),
            rows=[
                (position, *(float(kind[:, position].mean()) for kind in kinds.values()))
                for position in range(len(self._prompt))
            ],
        )
        self._pictures["attention"] = lambda path: pictures.plot_attention(
            path, mass, even=found.even
        )

    def add_removals(self) -> None:
        """Scores the prompt with positions removed, on the development split."""
        split, splits = self._development()
        score = scoring.scorer_of_many(self._base, self._data, self._prediction, splits)

        def score_many(injections: Sequence[Injection]) -> list[float]:
            injects = [lambda batch, injection=injection: injection for injection in injections]
            return [evaluation.score for evaluation in score(injects)]

        found = score_removals(self._prompt, score_many)
        rank = {position: place for place, position in enumerate(found.order)}
        self._tables["removals"] = Table(
            title=f"Score on {self._data.name} {split} without each position ({found.whole:.3f} "
            "with all), and as positions are removed, the least important first.",
            columns=("position", "score without", "turn", "score once removed"),
            rows=[
                (i, float(found.without[i]), rank[i] + 1, float(found.cumulative[rank[i]]))
                for i in range(len(self._prompt))
            ],
        )
        self._pictures["removals"] = lambda path: pictures.plot_removals(
            path, whole=found.whole, without=found.without, cumulative=found.cumulative
        )

    def _development(self) -> tuple[str, list[TokenizedSplit]]:
        if self._splits is None:
            split = self._prediction.split
            splits = load_splits(self._base, self._data, split)
            if scoring.withheld(splits):
                raise UserError(
                    f"The labels of {self._data.name}'s {split} split are withheld; set "
                    "--gin.predict.split=validation."
                )
            self._splits = split, splits
        return self._splits

    def _add_neighbors(self, k: int) -> None:
        tightness = clusters.tightness(self.neighbors, self._table)
        chance = clusters.tightness_by_chance(self._table, k)
        self._tables["neighbors"] = Table(
            title=f"The {k} nearest pieces of each position by {self._metric}, and their mean "
            f"cosine similarity among themselves: {tightness.mean():.3f} on average, "
            f"{chance:.3f} of {k} pieces drawn at random.",
            columns=("position", "neighbors", "nearest", "tightness"),
            rows=[
                (position, " ".join(n.piece for n in nearest), nearest[0].value, float(tight))
                for position, (nearest, tight) in enumerate(
                    zip(self.neighbors, tightness, strict=True)
                )
            ],
        )

    def _add_labels(self) -> None:
        if not (labels := self._labels):
            return
        ids = [self._base.vocabulary.encode(label) for label in labels]
        found = clusters.label_persistence(
            self._prompt, self._table, labels, ids, metric=self._metric
        )
        self._tables["labels"] = Table(
            title=f"Class labels among the neighbors: the rank, of {len(self._table)} pieces, of "
            "a label's nearest piece, at the position that class-label initialization puts it at "
            "(and that position's cosine similarity to its initial value), and where it is best.",
            columns=("label", "start", "rank", "cosine to start", "best at", "best rank"),
            rows=[
                (
                    each.label,
                    each.start,
                    each.start_rank,
                    each.start_cosine,
                    each.best_position,
                    each.best_rank,
                )
                for each in found
            ],
        )

    def _add_repeats(self) -> None:
        repeated = clusters.repeated_neighbors(self.neighbors)
        share = clusters.distinct_share(self.neighbors)
        self._tables["repeats"] = Table(
            title=f"Pieces nearest to several positions; {share:.0%} of the positions' nearest are "
            "distinct.",
            columns=("piece", "times", "positions"),
            rows=[
                (piece, len(places), " ".join(map(str, places)))
                for piece, places in repeated.items()
            ],
        )

    def _add_norms(self) -> None:
        prompt = np.linalg.norm(self._prompt, axis=1)
        vocabulary = np.linalg.norm(self._table, axis=1)
        self._tables["norms"] = Table(
            title="Norms of the prompt's positions and of the vocabulary's embeddings.",
            columns=("", "least", "median", "mean", "most"),
            rows=[
                (name, *(float(of(norms)) for of in (np.min, np.median, np.mean, np.max)))
                for name, norms in (("prompt", prompt), ("vocabulary", vocabulary))
            ],
        )
        self._pictures["norms"] = lambda path: pictures.plot_norms(path, prompt, vocabulary)
