"""IA3 adapters of PEFT: `ia3_l` of each module, [outputs, 1], or [1, inputs] of "feedforward" ones.

PEFT multiplies what k and v give, and what wo is given, as the paper does. Its default for mT5
multiplies what wi_1 gives instead; in a gated block the hidden layer is a product with that, so the
factors are the same.
"""

import dataclasses
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.peft import Adapter, read_adapter
from prompt_tuning.checkpoints.peft_layers import (
    check_all_taken,
    check_shape,
    check_unset,
    layer_arrays,
    module_arrays,
    module_paths,
    of_target,
    written_config,
)
from prompt_tuning.methods.base import Trained
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.targets import Target, projections, scalable

_FACTORS = "ia3_l"


def load_peft_ia3(path: Path, config: T5Config) -> tuple[IA3, Trained, Adapter]:
    """Returns the method of an IA3 adapter, its variables, and the adapter.

    Raises:
      UserError: as `peft.read_adapter`; or it has factors of other places, or is another model's.
    """
    adapter = read_adapter(path, peft_type="IA3")
    check_unset(adapter, ("modules_to_save",), path)
    modules = module_arrays(adapter)
    by_name = {target.name: target for target in projections(config)}
    targets, params = [], {}
    for target in scalable(config):
        size = math.prod(target.outputs)
        product = None
        for name, shape in _modules(target, config).items():
            found = of_target(modules, by_name[name], (_FACTORS,), path)
            if found is not None:
                check_shape(found[0], shape(size), f"{name}'s {_FACTORS}", path)
                factors = found[0].reshape(target.layers, *target.outputs)
                product = factors if product is None else product * factors
        if product is not None:
            targets.append(target)
            params[target.name] = jnp.asarray(product)
    check_all_taken(modules, targets, path, "factor")
    return IA3(targets=tuple(targets)), {"params": params}, adapter


def peft_ia3(method: IA3, trained: Trained, base_model: str | None) -> Adapter:
    """Returns the adapter with which PEFT computes what we do with a method's variables."""
    arrays: dict[str, np.ndarray] = {}
    targets, feed_forward = [], []
    for target in method.targets:
        factors = np.asarray(trained["params"][target.name], np.float32)
        factors = factors.reshape(target.layers, -1, 1)
        if target.name.endswith("/hidden"):
            target = dataclasses.replace(target, name=target.name.removesuffix("hidden") + "wo")
            factors = factors.mT
            feed_forward.append(target)
        targets.append(target)
        arrays |= layer_arrays(target, _FACTORS, factors)
    config = written_config(
        "IA3",
        base_model,
        target_modules=module_paths(targets),
        feedforward_modules=module_paths(feed_forward),
        fan_in_fan_out=False,
    )
    return Adapter(config=config, arrays=arrays, metadata={})


def _modules(target: Target, config: T5Config) -> dict:
    """The modules at which PEFT may have a target's factors, and their shape for a size."""

    def before(size: int) -> tuple[int, int]:
        return 1, size

    def after(size: int) -> tuple[int, int]:
        return size, 1

    if not target.name.endswith("/hidden"):
        return {target.name: after}
    block = target.name.removesuffix("hidden")
    return {f"{block}wo": before, **({f"{block}wi_1": after} if config.gated_mlp else {})}
