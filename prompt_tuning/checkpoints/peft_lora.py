"""LoRA adapters of PEFT: `lora_A` [rank, inputs] and `lora_B` [outputs, rank] of each module.

PEFT computes x A^T B^T * lora_alpha / r, or / sqrt(r) with use_rslora. What starts from changed
frozen weights (PiSSA and its like), is weighted otherwise (DoRA), or trains more is refused.
"""

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.peft import CONFIG_FILE, Adapter, read_adapter
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
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.methods.base import Trained
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.targets import projections

_DOWN, _UP = "lora_A.weight", "lora_B.weight"
_UNKNOWN = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "layers_to_transform",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "monteclora_config",
    "kasa_config",
)
# What leaves the frozen weights as they are.
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def load_peft_lora(path: Path, config: T5Config) -> tuple[LoRA, Trained, Adapter]:
    """Returns the method of a LoRA adapter, its variables, and the adapter.

    Raises:
      UserError: as `peft.read_adapter`; or it is no plain LoRA, or of another model.
    """
    adapter = read_adapter(path, peft_type="LORA")
    check_unset(adapter, _UNKNOWN, path)
    start = adapter.config.get("init_lora_weights")
    if start not in _STARTS:
        raise UserError(
            f"The adapter {path} has init_lora_weights={shown(start)} ({CONFIG_FILE}), which "
            "starts from changed frozen weights; save it with PEFT's "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it."
        )
    rank, alpha = adapter.config.get("r"), adapter.config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not _is_number(alpha):
        raise UserError(
            f"The adapter {path} has r={shown(rank)} and lora_alpha={shown(alpha)} "
            f"({CONFIG_FILE}); expected an integer from 1 and a number."
        )
    modules = module_arrays(adapter)
    targets, params = [], {}
    for target in projections(config):
        found = of_target(modules, target, (_DOWN, _UP), path)
        if found is None:
            continue
        down, up = found
        check_shape(down, (rank, math.prod(target.inputs)), f"{target.name}'s lora_A", path)
        check_shape(up, (math.prod(target.outputs), rank), f"{target.name}'s lora_B", path)
        targets.append(target)
        down = down.mT.reshape(target.layers, *target.inputs, rank)
        params[f"{target.name}/down"] = jnp.asarray(down)
        params[f"{target.name}/up"] = jnp.asarray(
            up.mT.reshape(target.layers, rank, *target.outputs)
        )
    check_all_taken(modules, targets, path, "low rank")
    method = LoRA(
        targets=tuple(targets),
        rank=rank,
        alpha=float(alpha),  # pyright: ignore[reportArgumentType]
        rank_stabilized=bool(adapter.config.get("use_rslora")),
    )
    return method, {"params": params}, adapter


def peft_lora(method: LoRA, trained: Trained, base_model: str | None) -> Adapter:
    """Returns the adapter with which PEFT computes what we do with a method's variables."""
    arrays: dict[str, np.ndarray] = {}
    for target in method.targets:
        down, up = (
            np.asarray(trained["params"][f"{target.name}/{part}"], np.float32)
            for part in ("down", "up")
        )
        arrays |= layer_arrays(target, _DOWN, down.reshape(target.layers, -1, method.rank).mT)
        arrays |= layer_arrays(target, _UP, up.reshape(target.layers, method.rank, -1).mT)
    alpha = int(method.alpha) if method.alpha == int(method.alpha) else method.alpha
    config = written_config(
        "LORA",
        base_model,
        r=method.rank,
        lora_alpha=alpha,
        use_rslora=method.rank_stabilized,
        lora_dropout=0.0,
        bias="none",
        fan_in_fan_out=False,
        target_modules=module_paths(method.targets),
    )
    return Adapter(config=config, arrays=arrays, metadata={})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
