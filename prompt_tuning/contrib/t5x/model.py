"""A frozen model with a method as a T5X model, which T5X trains, evaluates and runs.

The loss, the metrics and the decoding loops are T5X's; logits, decoding steps and initial values
are this package's. Names of arguments are those of T5X's gin files.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float, Int
from t5x import decoding, models, optimizers  # pyright: ignore

from prompt_tuning.checkpoints.arrays.stored_arrays import read_parameters
from prompt_tuning.checkpoints.frozen.load import stored_frozen
from prompt_tuning.contrib.t5x.parameters import (
    Tree,
    frozen_from_t5x,
    frozen_to_t5x,
    initial,
    is_trained,
    trained_from_t5x,
    trained_to_t5x,
    with_axes,
)
from prompt_tuning.contrib.t5x.tasks import read_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Method, Trained
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.models.decoding import prepared_for_loop
from prompt_tuning.models.encoder_decoder import Cache
from prompt_tuning.models.initialization import abstract_params, init_params
from prompt_tuning.models.injection import injected
from prompt_tuning.models.parameters import parameter_axes
from prompt_tuning.parallel.mesh import make_mesh
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.recipes.frozen_base import Base, check_vocabulary
from prompt_tuning.training.step import differentiable

Batch = Mapping[str, Array]


def frozen_model(
    checkpoint: str,
    vocabulary: str,
    architecture: str | None = None,
    name: str | None = None,
    compute_dtype: str = "float32",
    remat: bool = False,
    unroll: int = 0,
    dropout_rate: float = 0.0,
) -> Base:
    """Returns a frozen model with its embeddings, for initializers, and without other weights.

    T5X restores the weights from a checkpoint of its own, `utils.RestoreCheckpointConfig.path`.

    Args:
      checkpoint: any source that `load_frozen` accepts, such as the same T5X checkpoint.
      vocabulary: any source that `find_vocabulary` accepts.
      architecture: the architecture that the checkpoint must have; None accepts any.
      name: the name that prompts record; None is the architecture's.
      compute_dtype, remat, unroll, dropout_rate: as in `Compute`.
    """
    stored = stored_frozen(checkpoint, get_config(architecture) if architecture else None)
    ids = read_vocabulary(vocabulary)
    check_vocabulary(ids, stored.config)
    compute = Compute(
        compute_dtype=compute_dtype, remat=remat, unroll=unroll, dropout_rate=dropout_rate
    )
    flat = traverse_util.flatten_dict(abstract_params(stored.config, compute), sep="/")
    table = "token_embedder/embedding"
    flat |= read_parameters({table: stored.parameters[table]}, compute.param_dtype)
    mesh = make_mesh(devices=jax.local_devices()[:1])
    return Base(
        config=dataclasses.replace(stored.config, name=name or architecture or stored.config.name),
        params=traverse_util.unflatten_dict(flat, sep="/"),
        vocabulary=ids,
        layout=Layout(mesh=mesh, axes_of=parameter_axes),
        compute=compute,
    )


def trained_only(optimizer_def: Any) -> Any:
    """Returns an optimizer of T5X that updates the method's parameters only.

    The others have no state.
    """
    trained = traverse_util.ModelParamTraversal(lambda path, _: is_trained(path.lstrip("/")))
    return optimizers.MultiOptimizer(((trained, optimizer_def),))


class PromptTunedModel(models.EncoderDecoderModel):
    """A frozen encoder-decoder with a method.

    Attributes:
      base: the frozen model.
      method: computes the injection.
    """

    base: Base
    method: Method

    def __init__(
        self,
        base: Base,
        method: Callable[[Base], Method],
        optimizer_def: Any = None,
        decode_fn: Callable[..., Any] = decoding.temperature_sample,
        **options: Any,
    ):
        """Creates the model.

        Args:
          base: the frozen model, of `frozen_model` or `prompt_tuning.load`.
          method: such as `soft_prompt(length=20, initializer=random_uniform())`.
          optimizer_def: T5X's optimizer of the method's parameters; None to evaluate or infer.
          decode_fn: T5X's decoding loop; the default is greedy.
          **options: of `EncoderDecoderModel`, such as `z_loss` and `loss_normalizing_factor`.
        """
        ids = base.vocabulary.seqio()
        super().__init__(
            module=base.model,
            input_vocabulary=ids,
            output_vocabulary=ids,
            optimizer_def=None if optimizer_def is None else trained_only(optimizer_def),
            decode_fn=decode_fn,
            **options,
        )
        self.base = base
        self.method, self._like = initial(method, base)

    def get_initial_variables(
        self,
        rng: Array,
        input_shapes: Mapping[str, Any],
        input_types: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Returns parameters and their logical axes: random frozen ones, and the method's."""
        batch = {name: jnp.ones(shape, jnp.int32) for name, shape in input_shapes.items()}
        of_frozen, of_method = jax.random.split(rng)
        config = self.base.config
        frozen = frozen_to_t5x(init_params(config, of_frozen, self.base.compute), config)
        trained = trained_to_t5x(self.method.init(of_method, batch))
        params: dict[str, Any] = traverse_util.flatten_dict(frozen, sep="/")
        params |= traverse_util.flatten_dict(trained, sep="/")
        return with_axes(params, config)

    def _compute_logits(
        self,
        params: Tree,
        batch: Batch,
        dropout_rng: Array | None = None,
        mutable: Any = False,
        other_variables: Any = None,
    ) -> Any:
        """Returns logits, [batch, target, vocab], with empty variables if some are `mutable`."""
        del other_variables
        if "encoder_segment_ids" in batch:
            raise UserError(
                "The batch has several examples in a row, which a prompt can't be added to; set "
                "utils.DatasetConfig.pack = False for training and for evaluation."
            )
        frozen, trained = self._frozen_and_trained(params)
        injection = self.method.apply(trained, batch)
        model = differentiable(self.module, injection)
        variables, injection = injected(jax.lax.stop_gradient(frozen), injection)
        dropout = dropout_rng is not None and self.base.compute.dropout_rate > 0
        rngs = {"dropout": dropout_rng} if dropout else {}
        logits = model.apply(variables, batch, injection, deterministic=not dropout, rngs=rngs)
        return (logits, {}) if mutable else logits

    def predict_batch_with_aux(
        self,
        params: Tree,
        batch: Batch,
        rng: Array | None = None,
        decoder_params: MutableMapping[str, Any] | None = None,
        return_all_decodes: bool | None = None,
        num_decodes: int | None = None,
        prompt_with_targets: bool = False,
    ) -> tuple[Int[Array, "batch ..."], dict[str, Float[Array, "batch ..."]]]:
        """Returns T5X's decoding of a batch; all arguments and results are as in T5X."""
        defaults = self._default_decoder_params
        decodes_each = defaults.num_decodes if num_decodes is None else num_decodes
        every = defaults.return_all_decodes if return_all_decodes is None else return_all_decodes
        targets = batch["decoder_input_tokens"]
        eos_id = self.output_vocabulary.eos_id
        frozen, trained = self._frozen_and_trained(params)
        variables, injection = injected(frozen, self.method.apply(trained, batch))
        apply = functools.partial(self.module.apply, variables)
        encoded = apply(batch["encoder_input_tokens"], injection, method="encode")
        cache = apply(encoded, *targets.shape, method="start_cache")
        in_loop = prepared_for_loop(self.module, variables, cache.cross_kv)

        def step(state: Any) -> tuple[Float[Array, "rows vocab"], dict[str, Any]]:
            variables, cross_kv = in_loop()
            cache = Cache(self_kv=state.cache["self_kv"], cross_kv=cross_kv)
            logits, advanced = self.module.apply(
                variables,
                encoded,
                state.cur_token.reshape(-1),
                cache,
                jnp.max(state.cur_index),  # the same in all rows
                method="decode_step",
            )
            return logits, {"self_kv": advanced.self_kv}

        given = {"eos_id": eos_id, **(decoder_params or {})}
        if rng is not None:
            given["decode_rng"] = rng
        decodes, scores = self.decode_fn(
            inputs=targets * (targets != eos_id) if prompt_with_targets else targets * 0,
            cache={"self_kv": cache.self_kv},
            tokens_to_logits=step,
            num_decodes=decodes_each,
            cache_offset=1,  # layers come before rows
            **given,
        )
        if every:
            return decodes, {"scores": scores}
        return decodes[:, -1], {"scores": scores[:, -1]}

    def _frozen_and_trained(self, params: Tree) -> tuple[dict[str, Any], Trained]:
        """Returns the parameters of the frozen model and of the method in T5X's tree."""
        frozen = frozen_from_t5x(params, self.base.config)
        return frozen, trained_from_t5x(params, self._like)
