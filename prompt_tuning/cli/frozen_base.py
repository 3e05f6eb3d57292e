"""The frozen model, its vocabulary, and the devices they lie on, as gin configures them."""

import dataclasses
import os
from typing import Any

from jax.sharding import Mesh

from prompt_tuning.checkpoints.frozen import load_frozen
from prompt_tuning.checkpoints.locations import locate
from prompt_tuning.checkpoints.stored_arrays import ShardingOf
from prompt_tuning.cli.gin_config import forget
from prompt_tuning.cli.registry import register
from prompt_tuning.data.vocabularies import Vocabulary, find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.hardware import fastest_matmul_dtype
from prompt_tuning.models.parameter_axes import parameter_axes
from prompt_tuning.models.t5 import T5, Params
from prompt_tuning.parallel.mesh import gathered, make_mesh
from prompt_tuning.parallel.processes import ProcessOptions, from_environment
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.settings import Changeable, Fields, Free


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """What a prompt is trained on top of, and how it lies on the devices.

    vocabulary: a `Vocabulary`; None where a method is asked for its sizes alone.
    """

    config: T5Config
    params: Params
    vocabulary: Any
    layout: Layout

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        assert isinstance(self.layout.mesh, Mesh)
        return self.layout.mesh

    @property
    def model(self) -> T5:
        """The network that `params` belong to."""
        return T5(self.config, self.layout.place) if self.layout.fsdp else T5(self.config)

    @property
    def embedding(self) -> Any:
        """The frozen token embedding, [vocab, embed], where this process can read all of it."""
        table = self.params["token_embedder"]["embedding"]
        return table if self.mesh.size == 1 else gathered(table)


@register
def layout(
    model_parallel: Free[int] = 1,
    data_parallel: Free[int | None] = None,
    fsdp: Free[bool] = False,
) -> Layout:
    """How the frozen model lies on the devices; see `make_mesh` and `Layout`."""
    mesh = make_mesh(model=model_parallel, data=data_parallel)
    return Layout(mesh=mesh, axes_of=parameter_axes, fsdp=fsdp)


@register
def processes(given: Fields[ProcessOptions]) -> ProcessOptions | None:
    """How this process joins others, as given or as the environment tells; None: it is alone.

    What is given is forgotten: it holds for this process, not for the run's recorded settings.
    """
    forget("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
    found = from_environment(os.environ) if given.coordinator is None else given
    return found and dataclasses.replace(found, heartbeat_seconds=given.heartbeat_seconds)


@register
def frozen_model(
    checkpoint: Changeable[str | None],
    architecture: str | None = None,
    name: str | None = None,
    param_dtype: str | None = None,
    compute_dtype: str = "float32",
    matmul_dtype: str = "",
    remat: bool = False,
    unroll: int = 1,
    dropout_rate: float = 0.0,
    quantization: str = "",
    quantization_block: int = 64,
    quantize_output_layer: bool = False,
    sharding_of: Free[ShardingOf | None] = None,
) -> tuple[T5Config, Params]:
    """Loads the frozen model; the options after `name` are those of `T5Config`.

    `sharding_of` isn't gin's to give: it is the `layout`'s.
    `matmul_dtype` may also be "auto": bfloat16 where the hardware is faster in it.

    `name` is what prompts remember of the model: LM-adapted models have the architecture of those
    that aren't. It is the architecture's if None.

    Raises:
      UserError: the checkpoint is of another size than `architecture`, or None.
    """
    if checkpoint is None:
        raise UserError("No frozen model: INITIAL_CHECKPOINT_PATH is None; set it to one.")
    expected = get_config(architecture) if architecture else None
    config, params = load_frozen(
        checkpoint,
        expected,
        param_dtype,
        sharding_of,
        quantization=quantization,
        quantization_block=quantization_block,
        quantize_output_layer=quantize_output_layer,
    )
    config = dataclasses.replace(
        config,
        # Not the folder's name: a prompt fits the model wherever its files are.
        name=name or architecture or config.name,
        compute_dtype=compute_dtype,
        matmul_dtype=fastest_matmul_dtype() if matmul_dtype == "auto" else matmul_dtype,
        remat=remat,
        unroll=unroll,
        dropout_rate=dropout_rate,
    )
    return config, params


@register
def vocabulary(
    path: Changeable[str | None] = None,
    checkpoint: Changeable[str | None] = None,
    extra_ids: int | None = None,
) -> Vocabulary:
    """The vocabulary of the frozen model.

    Args:
      path: what `find_vocabulary` takes. None looks where the checkpoint is.
      checkpoint: the frozen model, as `frozen_model` takes it.
      extra_ids: how many sentinels to append, as `Vocabulary` takes it.
    """
    if path is not None:
        return find_vocabulary(path, extra_ids)
    if checkpoint is None:
        raise UserError("No vocabulary: add --gin.VOCABULARY_PATH=... (a file or a folder).")
    found = locate(checkpoint)
    return find_vocabulary(found if found.is_dir() else found.parent, extra_ids)
