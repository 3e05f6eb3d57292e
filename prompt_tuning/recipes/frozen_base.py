"""The frozen model, its vocabulary and its sharding."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter, check_fits, load_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.checkpoints.arrays.stored_arrays import ShardingOf
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.locations import locate
from prompt_tuning.data.mixtures import mixture_of
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.models import auto
from prompt_tuning.models.compute import AUTO, Compute
from prompt_tuning.models.config import MODELS, get_config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.families import model_of
from prompt_tuning.models.parameters import ModelConfig, parameter_axes, parameter_shapes
from prompt_tuning.models.t5 import Params
from prompt_tuning.parallel.accelerators import memory_of
from prompt_tuning.parallel.mesh import DATA_AXIS, MODEL_AXIS, gathered, make_mesh, values_at
from prompt_tuning.parallel.processes import is_first
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.recipes.say import say
from prompt_tuning.settings import Changeable, Fields, Free

# T5 rounds the table's rows up to a multiple of 128. If the table exceeds the vocabulary by more
# rows than this, they don't belong together.
_UNUSED_ROWS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """The frozen model that methods are trained on, with its vocabulary and sharding.

    Attributes:
      vocabulary: a `Vocabulary`; None if only the method's sizes are needed.
      settings: the settings it was loaded with, under gin's names, if known.
    """

    config: ModelConfig
    params: Params
    vocabulary: Any
    layout: Layout
    compute: Compute = Compute()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        assert isinstance(self.layout.mesh, Mesh)
        return self.layout.mesh

    @property
    def model(self) -> FrozenModel:
        """The Flax module of `params`."""
        if self.mesh.size == 1:
            return model_of(self.config, self.compute)
        return model_of(self.config, self.compute, self.layout)

    @property
    def embedding(self) -> Any:
        """The frozen token embedding, [vocab, embed], fully addressable by this process.

        As it enters the encoder: a T5Gemma scales its table.
        """
        table = self.params["token_embedder"]["embedding"]
        table = table if self.mesh.size == 1 else gathered(table)
        scale = self.config.embedding_scale
        return table if scale == 1.0 else table * scale

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of the model's parameters by name, "/"-joined."""
        return parameter_shapes(self.config)

    @property
    def in_use(self) -> dict[str, Any]:
        """The values of the settings that may be 'auto', for `identity.IN_USE`."""
        names = ("param_dtype", "compute_dtype", "attention", "remat", "unroll")
        return {name: getattr(self.compute, name) for name in names}

    def with_remat_decided(self, trained: Any, *, rows: int, source: int, target: int) -> "Base":
        """Returns the base with `compute.remat` decided, if it is 'auto'; see `auto.py`.

        Args:
          trained: the trainable parameters, float32, on each device.
          rows: examples of a microbatch on all devices.
          source: positions of the encoder for each, with the prompt.
          target: positions of the decoder.
        """
        if self.compute.remat != AUTO:
            return self
        kept = auto.kept_bytes(
            self.config,
            self.compute,
            rows=rows / self.mesh.shape[DATA_AXIS],
            source=source,
            target=target,
            model_parallel=self.mesh.shape[MODEL_AXIS],
            trained=trained,
        )
        weights = sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(self.params)
        )
        # Its gradients and the optimizer's state are at most as large each.
        weights += 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(trained))
        remat = auto.needs_remat(kept, weights, memory_of(self.mesh.local_devices[0]))
        return dataclasses.replace(self, compute=dataclasses.replace(self.compute, remat=remat))

    def load_adapter(self, path: str) -> Adapter:
        """Reads an adapter of any method and checks that it was trained for this model.

        Raises:
          UserError: it can't be read, or belongs to another model or vocabulary.
        """
        adapter = load_adapter(
            path,
            embed_dim=self.config.embed_dim,
            model=self.config.name,
            vocabulary_hash=self._vocabulary_hash,
            config=self.config,
        )
        if not adapter.is_prompt:
            check_fits(self.config, adapter, path)
        return adapter

    def load_prompt(self, path: str) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
        """Reads a soft prompt and its metadata, and checks that it was trained for this model."""
        return load_prompt(
            path,
            (None, self.config.embed_dim),
            model=self.config.name,
            vocabulary_hash=self._vocabulary_hash,
            peft_scale=self.config.peft_scale,
        )

    def source_prompts(self, paths: Sequence[str]) -> Float32[np.ndarray, "sources prompt embed"]:
        """Reads soft prompts of one length, as listed by SOURCE_PROMPTS."""
        if isinstance(paths, str | Path) or not paths:
            raise UserError(
                f"SOURCE_PROMPTS is {paths!r}; expected a list of prompt files, such as "
                "['runs/cb/prompt_best.npy', 'runs/rte/prompt_best.npy']."
            )
        prompts = [self.load_prompt(path)[0] for path in paths]
        for path, prompt in zip(paths, prompts, strict=True):
            if len(prompt) != len(prompts[0]):
                raise UserError(
                    f"The source prompt {path} has {len(prompt)} positions and {paths[0]} has "
                    f"{len(prompts[0])}; give prompts of the same length."
                )
        return np.stack(prompts)

    def count_tasks(self, mixture_or_task: Any) -> int:
        """Returns the number of tasks in a mixture, given as an object or by name; 1 for a task."""
        return len(mixture_of(mixture_or_task).tasks)

    @property
    def _vocabulary_hash(self) -> str | None:
        return None if self.vocabulary is None else self.vocabulary.hash


def layout(
    model_parallel: Free[int] = 1,
    data_parallel: Free[int | None] = None,
    fsdp: Free[bool] = False,
) -> Layout:
    """The sharding of the frozen model; see `make_mesh` and `Layout`."""
    mesh = make_mesh(model=model_parallel, data=data_parallel)
    return Layout(mesh=mesh, axes_of=parameter_axes, fsdp=fsdp)


def frozen_model(
    checkpoint: Changeable[str | None],
    architecture: str | None = None,
    name: str | None = None,
    param_dtype: Changeable[str | None] = AUTO,
    compute_dtype: str = AUTO,
    remat: Changeable[bool | Literal["auto"]] = AUTO,
    unroll: Changeable[int | Literal["auto"]] = AUTO,
    sharding_of: Free[ShardingOf | None] = None,
    compute: Fields[Compute] = Compute(),
) -> tuple[ModelConfig, Compute, Params]:
    """Loads the frozen model.

    Args:
      checkpoint: any source that `load_frozen` accepts.
      architecture: the expected architecture; None accepts any.
      name: the model name recorded by prompts, as LM-adapted and original models share an
        architecture; None is the architecture's name.
      param_dtype: dtype to cast the weights to; None keeps the saved dtype.
      compute_dtype, remat, unroll: as in `Compute`. For these and `param_dtype`, 'auto' is what
        suits the model and the hardware (`models/auto.py`).
      sharding_of: the `layout`'s.
      compute: the other options; the fields of these parameters are ignored.

    Raises:
      UserError: the checkpoint is None, or doesn't have the given `architecture`.
    """
    if checkpoint is None:
        raise UserError("No frozen model: INITIAL_CHECKPOINT_PATH is None; set it to one.")
    expected = get_config(architecture) if architecture else None
    platform = jax.default_backend()
    resolve = functools.partial(
        auto.resolved, platform=platform, compute_dtype=compute_dtype, remat=remat, unroll=unroll
    )
    resolve(compute, MODELS["t5_small"])  # so that a wrong value is told before weights are read
    config, params = load_frozen(
        checkpoint,
        expected,
        auto.auto_param_dtype(platform) if param_dtype == AUTO else param_dtype,
        sharding_of,
        quantization=compute.quantization,
        quantization_block=compute.quantization_block,
        quantize_output_layer=compute.quantize_output_layer,
    )
    # Not the folder's name: moving the model's files doesn't change which prompts fit.
    config = dataclasses.replace(config, name=name or architecture or config.name)
    dtype = str(params["token_embedder"]["embedding"].dtype)
    return config, resolve(dataclasses.replace(compute, param_dtype=dtype), config), params


def vocabulary(
    path: Changeable[str | None] = None,
    checkpoint: Changeable[str | None] = None,
    extra_ids: int | None = None,
) -> Vocabulary:
    """The vocabulary of the frozen model.

    Args:
      path: any source that `find_vocabulary` accepts; None searches the checkpoint's folder.
      checkpoint: the frozen model, as in `frozen_model`.
      extra_ids: number of sentinels to append, as in `Vocabulary`.
    """
    if path is not None:
        return find_vocabulary(path, extra_ids)
    if checkpoint is None:
        raise UserError("No vocabulary: add --gin.VOCABULARY_PATH=... (a file or a folder).")
    found = locate(checkpoint)
    return find_vocabulary(found if found.is_dir() else found.parent, extra_ids)


def load_base(
    layout: Layout,
    load_model: Callable[[ShardingOf | None], tuple[ModelConfig, Compute, Params]],
    vocabulary: Vocabulary,
    settings: Mapping[str, Any] | None = None,
) -> Base:
    """Loads the frozen model, sharded over the devices.

    Args:
      layout: its sharding.
      load_model: `frozen_model` as a function of `sharding_of` only.
      vocabulary: the model's vocabulary.
      settings: the settings of the model, under gin's names.

    Raises:
      UserError: the model can't be read, or the vocabulary is another model's.
    """
    # A single device needs no sharding.
    config, compute, params = load_model(layout.sharding_of if layout.mesh.size > 1 else None)
    if isinstance(config, DecoderOnlyConfig):
        # What pads and ends sequences are conventions of the data; some files have several ids.
        config = dataclasses.replace(config, pad_id=vocabulary.pad_id, eos_id=vocabulary.eos_id)
    check_vocabulary(vocabulary, config)
    for line in layout.unsplit(params) if is_first() else ():
        say(line)
    return Base(
        config=config,
        compute=compute,
        params=params,
        vocabulary=vocabulary,
        layout=layout,
        settings=settings or {},
    )


def check_vocabulary(vocabulary: Vocabulary, config: ModelConfig) -> None:
    """Checks that a vocabulary's size and special ids match the model."""
    unused = config.vocab_size - len(vocabulary)
    if isinstance(config, DecoderOnlyConfig):  # a Gemma 3 without images lacks their tokens' rows
        unused = max(unused, min(config.vocab_size - vocabulary.num_pieces, 0))
    if not 0 <= unused < _UNUSED_ROWS:
        raise UserError(
            f"The vocabulary {vocabulary.path} has {len(vocabulary)} pieces, but the model "
            f"'{config.name}' has {config.vocab_size} embeddings; set VOCABULARY_PATH to the "
            "vocabulary that it was pre-trained with."
        )
    for name in ("pad_id", "eos_id"):
        ours, theirs = getattr(vocabulary, name), getattr(config, name)
        if ours != theirs:
            raise UserError(
                f"The model '{config.name}' has the {name} {theirs}, but it is {ours} in the "
                f"vocabulary {vocabulary.path}: they belong to different models, or the model's "
                "configuration is wrong."
            )


def weights_hash(params: Params) -> str:
    """Returns a hash of each parameter's shape and of up to a thousand of its values.

    This distinguishes models without copying tens of gigabytes from devices. The hash doesn't
    depend on the sharding; all processes must call it.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        places = np.arange(0, leaf.size, -(-leaf.size // 1000))
        digest.update(f"{leaf.shape} {leaf.dtype}".encode())
        digest.update(values_at(leaf, np.unravel_index(places, leaf.shape)).tobytes())
    return digest.hexdigest()[:16]
