"""What PEFT's adapters of modules have in common: arrays by module, each layer's apart.

PEFT calls an array of a module "base_model.model." + Hugging Face's path of the module + "." + its
own name, such as "lora_A.weight"; here all layers' are stacked by the target that they belong to.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_tuning.checkpoints.huggingface import huggingface_module
from prompt_tuning.checkpoints.peft import CONFIG_FILE, TASK_TYPE, Adapter
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown, shown_names
from prompt_tuning.models.targets import Target

_START = "base_model.model."


def module_arrays(adapter: Adapter) -> dict[str, dict[str, np.ndarray]]:
    """Returns the arrays by Hugging Face's path of the module, then by the rest of the name."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in adapter.arrays.items():
        module, _, rest = name.removeprefix(_START).partition(".lora_")
        rest = f"lora_{rest}" if rest else ""
        if not rest:
            module, _, rest = name.removeprefix(_START).rpartition(".")
        found.setdefault(module, {})[rest] = array
    return found


def of_target(
    modules: dict[str, dict[str, np.ndarray]], target: Target, names: Sequence[str], path: Path
) -> list[np.ndarray] | None:
    """Takes out the arrays of a target: by name, those of all layers stacked; None: it has none.

    Raises:
      UserError: some layers have them and some don't, or have others or of other shapes.
    """
    paths = [huggingface_module(target.name, layer) for layer in range(target.layers)]
    layers = [modules.pop(each, None) for each in paths]
    if not any(layers):
        return None
    for each, arrays in zip(paths, layers, strict=True):
        found = sorted(arrays or {})
        if found != sorted(names):
            raise UserError(
                f"The adapter {path} has {shown_names(found) or 'nothing'} for {each}; expected "
                f"{' and '.join(names)} in every layer that the model has of it."
            )
    stacked = []
    for name in names:
        parts = [np.asarray(arrays[name], np.float32) for arrays in layers if arrays]
        if len({part.shape for part in parts}) > 1:
            raise UserError(
                f"The adapter {path} has {name} of several shapes in the layers of {target.name}; "
                "expected one."
            )
        whole = np.stack(parts)
        if not np.isfinite(whole).all():
            raise UserError(
                f"The adapter {path} has values of {name} in {target.name} that are NaN or "
                "infinite. Its training diverged; use an earlier one."
            )
        stacked.append(whole)
    return stacked


def check_all_taken(
    modules: Mapping[str, object], targets: Sequence[object], path: Path, ours: str
) -> None:
    """Raises UserError if an adapter has more than could be taken, or had nothing."""
    if modules or not targets:
        raise UserError(
            f"The adapter {path} holds {shown_names(sorted(modules)) or 'nothing'}, which isn't in "
            f"this model, or of which no {ours} is known here; give the model it was trained on."
        )


def check_shape(array: np.ndarray, expected: tuple[int, ...], name: str, path: Path) -> None:
    """Raises UserError unless each layer's array has a shape."""
    if array.shape[1:] != expected:
        raise UserError(
            f"The adapter {path} has {name} of shape {list(array.shape[1:])}; expected "
            f"{list(expected)}: it was trained on another model."
        )


def check_unset(adapter: Adapter, fields: Sequence[str], path: Path) -> None:
    """Raises UserError if a field of the configuration asks for what isn't known here."""
    for field in fields:
        value = adapter.config.get(field)
        if value not in (None, False, [], {}, "none"):
            raise UserError(
                f"The adapter {path} has {field}={shown(value)} ({CONFIG_FILE}), which can't be "
                "computed here; expected it unset."
            )


def layer_arrays(target: Target, name: str, stacked: np.ndarray) -> dict[str, np.ndarray]:
    """Returns a target's arrays, [layer, ...], by PEFT's names."""
    return {
        f"{_START}{huggingface_module(target.name, layer)}.{name}": np.ascontiguousarray(array)
        for layer, array in enumerate(stacked)
    }


def module_paths(targets: Sequence[Target]) -> list[str]:
    """Returns Hugging Face's paths of targets' modules in all layers."""
    return [
        huggingface_module(target.name, layer)
        for target in targets
        for layer in range(target.layers)
    ]


def written_config(peft_type: str, base_model: str | None, **fields: Any) -> dict[str, Any]:
    """Returns what adapter_config.json says of any adapter, and `fields`."""
    return {
        "peft_type": peft_type,
        "task_type": TASK_TYPE,
        **fields,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
    }
