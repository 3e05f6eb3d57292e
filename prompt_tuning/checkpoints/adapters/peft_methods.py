"""Converts PEFT's LoRA, DoRA, VeRA, IA3 and prefix tuning to and from our variables.

The name of a module's array is "base_model.model." + Hugging Face's path of the module + "." + its
own name, such as "lora_A.weight". There is one per layer; ours are stacked over a target's layers.

LoRA: `lora_A` [rank, inputs] and `lora_B` [outputs, rank]. PEFT computes x A^T B^T, times
lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. With use_dora, `lora_magnitude_vector`
[outputs] is DoRA's magnitude. Variants that change the frozen weights for initialization (such as
PiSSA) or train further parameters are rejected.

VeRA: `vera_lambda_d` [rank] and `vera_lambda_b` [outputs], and once for all modules `vera_A` [rank,
widest inputs] and `vera_B` [widest outputs, rank], which PEFT saves unless save_projection is
False: only PyTorch can draw them again.

IA3: `ia3_l` [outputs, 1], or [1, inputs] for "feedforward" modules. PEFT scales the outputs of k
and v and the input of wo, as in the paper. Its default for mT5 scales the output of wi_1 instead;
in a gated block, the hidden layer is a product with that output, so the factors are equivalent.

Prefix tuning: `prompt_embeddings` [prefix, num_layers * 2 * token_dim], only in the decoder's
self-attention. Layer i doesn't read the i-th of the num_layers pairs of keys and values: PEFT
repeats all pairs for two submodules and splits the result into groups of four arrays per layer, of
which it uses the first two (PEFT 0.21, `PeftModel.get_prompt`). So layer i reads pair
2i mod num_layers; if num_layers is even, half of the trained pairs are never read, and two layers
share each other pair. This module computes the same. Any prefix can still be written, with an odd
num_layers: the model's, or one more with a pair that no layer reads. PEFT's token_dim must be
heads * head_dim, with the heads of keys; its default, the model's width, fails if they differ, as
in T5 1.1 Small, and a T5Gemma has no default.

Of a decoder-only model, layer i reads the i-th pair, and there are as many pairs as layers; keys
and positions are PEFT's. Windows aren't: PEFT's prefix leaves them, ours doesn't.

In a T5Gemma, PEFT's prefix takes the first positions and the target's tokens those after
it; here the prefix has none and the target begins at 0. PEFT rotates no key of the prefix either,
so ours are its keys rotated back by the prefix's length. In layers with a window PEFT's prefix
leaves it after as many tokens, and ours doesn't: T5Gemma's windows are longer than its targets.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.adapters.peft import (
    CONFIG_FILE,
    PROMPT_KEY,
    PROMPT_TYPES,
    PeftAdapter,
    peft_type_of,
    read_adapter,
    task_type_of,
    write_adapter,
)
from prompt_tuning.checkpoints.frozen.huggingface import huggingface_modules
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.json_text import shown, shown_names
from prompt_tuning.methods.base import Method, Trained
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.registry import method_name
from prompt_tuning.methods.vera import VeRA
from prompt_tuning.models.config import ModelConfig
from prompt_tuning.models.rotary_layers import angles_of, rotated
from prompt_tuning.models.targets import Target, attention_blocks, projections, scalable

_Arrays = dict[str, np.ndarray]
_START = "base_model.model."
_MODULE_AND_NAME = re.compile(r"(?:base_model\.model\.)?(.*?)\.(lora_.*|[^.]*)", re.DOTALL)

_DOWN, _UP, _MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
_NOT_LORA = (
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
# Initializations that don't change the frozen weights.
_LORA_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")

_FACTORS = "ia3_l"

_RANK_SCALE, _OUTPUT_SCALE = "vera_lambda_d", "vera_lambda_b"
_SHARED = ("vera_A", "vera_B")

_PREFIX_BLOCK = "decoder/self_attention"
"""The only block of an encoder-decoder with prefixes in PEFT."""


def load_peft_method(
    path: FilePath, config: ModelConfig | None
) -> tuple[Method, Trained, Mapping[str, str]] | None:
    """Returns an adapter's method, variables and metadata, or None if it is a prompt.

    Raises:
      UserError: it can't be read, has an unknown method or is for another model; or `config` is
        None.
    """
    kind = peft_type_of(path)
    if kind in PROMPT_TYPES:
        return None
    if kind not in _METHODS:
        raise UserError(
            f"The adapter in {path} has peft_type {shown(kind)}; only "
            f"{', '.join(map(repr, (*PROMPT_TYPES, *_METHODS)))} are supported."
        )
    if config is None:
        raise UserError(
            f"The adapter in {path} has peft_type {kind!r}, which can only be read together with "
            "its model; use a command that loads a model."
        )
    adapter = read_adapter(path, peft_types=(kind,))
    method, variables = _METHODS[kind].read(adapter, config)
    return method, variables, adapter.metadata


def save_peft_method(
    folder: FilePath,
    method: Method,
    trained: Trained,
    metadata: Mapping[str, str],
    *,
    base_model: str | None = None,
) -> list[FilePath]:
    """Writes a method's variables, folded, as an equivalent PEFT adapter.

    The other arguments and the result are those of `peft.write_adapter`.

    Raises:
      UserError: PEFT doesn't have the method, or the files can't be written.
    """
    method, trained = method.fold(trained)
    for kind, (ours, _, write) in _METHODS.items():
        if type(method) in ours:
            arrays = jax.tree.map(lambda x: np.asarray(x, np.float32), trained)
            fields, arrays = write(method, arrays, metadata)
            return write_adapter(folder, kind, fields, arrays, metadata, base_model=base_model)
    raise UserError(
        f"Parameters trained by {method_name(method)} can't be exported to PEFT; only prompts, "
        "lora, dora, vera, ia3 and decoder prefixes can."
    )


def _read_lora(adapter: PeftAdapter, config: ModelConfig) -> tuple[LoRA, Trained]:
    _check_unset(adapter, _NOT_LORA)
    start = adapter.config.get("init_lora_weights")
    if start not in _LORA_STARTS:
        raise UserError(
            f"The adapter {adapter.path} has init_lora_weights={shown(start)} ({CONFIG_FILE}), "
            "which modifies the frozen weights; save it with PEFT's "
            "path_initial_model_for_weight_conversion, which converts it to plain LoRA."
        )
    rank, alpha = adapter.config.get("r"), adapter.config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise UserError(
            f"The adapter {adapter.path} has r={shown(rank)} and lora_alpha={shown(alpha)} "
            f"({CONFIG_FILE}); expected a positive integer and a number."
        )
    modules = _by_module(adapter)
    kind = DoRA if adapter.config.get("use_dora") else LoRA
    targets, params = [], {}
    for target in projections(config):
        outputs = math.prod(target.outputs)
        shapes = {_DOWN: (rank, math.prod(target.inputs)), _UP: (outputs, rank)}
        shapes |= {_MAGNITUDE: (outputs,)} if kind is DoRA else {}
        if found := _take(modules, _paths(config.family, target), shapes, adapter.path):
            down, up, *magnitude = found  # [layer, rank, inputs], [layer, outputs, rank]
            targets.append(target)
            if magnitude:
                magnitude = magnitude[0].reshape(target.layers, *target.outputs)
                params[f"{target.name}/magnitude"] = magnitude
            params[f"{target.name}/down"] = down.mT.reshape(target.layers, *target.inputs, rank)
            params[f"{target.name}/up"] = up.mT.reshape(target.layers, rank, *target.outputs)
    _check_all_taken(modules, targets, adapter.path)
    stabilized = bool(adapter.config.get("use_rslora"))
    method = kind(targets=tuple(targets), rank=rank, alpha=float(alpha), rank_stabilized=stabilized)
    return method, {"params": params}


def _write_lora(
    method: LoRA, variables: Trained, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], _Arrays]:
    arrays: _Arrays = {}
    params = variables["params"]
    family = metadata.get("family", "t5")
    for target in method.targets:
        down, up = params[f"{target.name}/down"], params[f"{target.name}/up"]
        down = down.reshape(target.layers, -1, method.rank).mT
        up = up.reshape(target.layers, method.rank, -1).mT
        for module, of_down, of_up in zip(_paths(family, target), down, up, strict=True):
            arrays |= {f"{_START}{module}.{_DOWN}": of_down, f"{_START}{module}.{_UP}": of_up}
        if isinstance(method, DoRA):
            magnitude = params[f"{target.name}/magnitude"].reshape(target.layers, -1)
            for module, of_layer in zip(_paths(family, target), magnitude, strict=True):
                arrays[f"{_START}{module}.{_MAGNITUDE}"] = of_layer
    fields = {
        "r": method.rank,
        "lora_alpha": int(method.alpha) if method.alpha == int(method.alpha) else method.alpha,
        "use_rslora": method.rank_stabilized,
        "use_dora": isinstance(method, DoRA),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [path for target in method.targets for path in _paths(family, target)],
    }
    return fields, arrays


def _read_vera(adapter: PeftAdapter, config: ModelConfig) -> tuple[VeRA, Trained]:
    _check_unset(adapter, ("bias", "modules_to_save", "layers_to_transform"))
    modules = _by_module(adapter)
    shared = modules.pop("base_model", {})
    rank = adapter.config.get("r")
    if shared.keys() != set(_SHARED):
        raise UserError(
            f"The adapter {adapter.path} has {shown_names(sorted(shared)) or 'no projections'}; "
            f"expected {' and '.join(_SHARED)}: save it with PEFT's save_projection=True."
        )
    down, up = (np.asarray(shared[name], np.float32).T for name in _SHARED)
    if type(rank) is not int or rank < 1 or down.ndim != 2 or up.ndim != 2:
        raise UserError(
            f"The adapter {adapter.path} has r={shown(rank)} and {_SHARED[0]} of shape "
            f"{list(down.T.shape)}; expected a positive integer and a matrix."
        )
    targets, params = [], {}
    for target in projections(config):
        shapes = {_RANK_SCALE: (rank,), _OUTPUT_SCALE: (math.prod(target.outputs),)}
        if found := _take(modules, _paths(config.family, target), shapes, adapter.path):
            targets.append(target)
            params[f"{target.name}/d"] = found[0]
            params[f"{target.name}/b"] = found[1].reshape(target.layers, *target.outputs)
    _check_all_taken(modules, targets, adapter.path)
    method = VeRA(targets=tuple(targets), rank=rank)
    expected = ((method.widest_inputs, rank), (rank, method.widest_outputs))
    if (down.shape, up.shape) != expected:
        raise UserError(
            f"The adapter {adapter.path} has {' and '.join(_SHARED)} of shapes "
            f"{list(down.T.shape)} and {list(up.T.shape)}; expected {list(expected[0][::-1])} and "
            f"{list(expected[1][::-1])}: it was trained on another model."
        )
    return method, {"params": params, "projections": {"down": down, "up": up}}


def _write_vera(
    method: VeRA, variables: Trained, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], _Arrays]:
    family = metadata.get("family", "t5")
    params, shared = variables["params"], variables["projections"]
    arrays: _Arrays = {"base_model.vera_A": shared["down"].T, "base_model.vera_B": shared["up"].T}
    for target in method.targets:
        scales = (params[f"{target.name}/d"], params[f"{target.name}/b"])
        scales = (scale.reshape(target.layers, -1) for scale in scales)
        for module, d, b in zip(_paths(family, target), *scales, strict=True):
            arrays |= {
                f"{_START}{module}.{_RANK_SCALE}": d,
                f"{_START}{module}.{_OUTPUT_SCALE}": b,
            }
    fields = {
        "r": method.rank,
        "d_initial": method.initial_scale,
        "projection_prng_key": method.seed,
        "save_projection": True,
        "vera_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [path for target in method.targets for path in _paths(family, target)],
    }
    return fields, arrays


def _read_ia3(adapter: PeftAdapter, config: ModelConfig) -> tuple[IA3, Trained]:
    _check_unset(adapter, ("modules_to_save",))
    modules = _by_module(adapter)
    by_name = {target.name: target for target in projections(config)}
    targets, params = [], {}
    for target in scalable(config):
        size = math.prod(target.outputs)
        block, _, module = target.name.rpartition("/")
        places = {target.name: (size, 1)}
        if module == "hidden":  # before wo, or after wi_1
            places = {f"{block}/wo": (1, size), f"{block}/wi_1": (size, 1)}
        for name, shape in places.items():
            each = by_name.get(name)  # an ungated block has no wi_1
            paths = _paths(config.family, each) if each else []
            if found := _take(modules, paths, {_FACTORS: shape}, adapter.path):
                factors = found[0].reshape(target.layers, *target.outputs)
                params[target.name] = factors * params.get(target.name, 1)
        if target.name in params:
            targets.append(target)
    _check_all_taken(modules, targets, adapter.path)
    return IA3(targets=tuple(targets)), {"params": params}


def _write_ia3(
    method: IA3, variables: Trained, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], _Arrays]:
    arrays: _Arrays = {}
    params = variables["params"]
    feed_forward: list[str] = []
    for target in method.targets:
        factors = params[target.name].reshape(target.layers, -1, 1)
        block, _, module = target.name.rpartition("/")
        family = metadata.get("family", "t5")
        paths = _paths(family, target, f"{block}/wo" if module == "hidden" else target.name)
        if module == "hidden":
            factors = factors.mT
            feed_forward += paths
        for path, of_layer in zip(paths, factors, strict=True):
            arrays[f"{_START}{path}.{_FACTORS}"] = of_layer
    fields = {
        "target_modules": [
            name.removeprefix(_START).removesuffix(f".{_FACTORS}") for name in arrays
        ],
        "feedforward_modules": feed_forward,
        "fan_in_fan_out": False,
    }
    return fields, arrays


def _read_prefix(adapter: PeftAdapter, config: ModelConfig) -> tuple[DeepPrompt, Trained]:
    _check_prefixes(config.family)
    _check_unset(adapter, ("modules_to_save",))
    (target,) = (each for each in attention_blocks(config) if each.name == _PREFIX_BLOCK)
    heads, head_dim = target.outputs
    fields = ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim")
    length, pairs, *sizes = (adapter.config.get(field) for field in fields)
    if sizes != [heads, heads * head_dim]:
        raise UserError(
            f"The adapter {adapter.path} has num_attention_heads={shown(sizes[0])} and "
            f"token_dim={shown(sizes[1])} ({CONFIG_FILE}); expected {heads} and "
            f"{heads * head_dim} for the model '{config.name}'."
        )
    stacks = _stacks(config.family)
    submodules = adapter.config.get("num_transformer_submodules", stacks)
    if (
        type(pairs) is not int
        or submodules not in (None, stacks)
        or pairs < target.layers
        or (stacks == 1 and pairs > target.layers)
    ):
        raise UserError(
            f"The adapter {adapter.path} has num_layers={shown(pairs)} and "
            f"num_transformer_submodules={shown(submodules)} ({CONFIG_FILE}), with which PEFT "
            f"itself can't run the model '{config.name}'; expected {target.layers} and {stacks}."
        )
    shapes = {name: list(array.shape) for name, array in adapter.arrays.items()}
    expected = [length, pairs * 2 * heads * head_dim]
    if shapes != {PROMPT_KEY: expected}:
        found = [f"{name} of shape {shape}" for name, shape in shapes.items()]
        raise UserError(
            f"The adapter {adapter.path} contains {shown_names(found) or 'nothing'}; expected "
            f"only {PROMPT_KEY}, of shape {shown(expected)}."
        )
    array = np.asarray(adapter.arrays[PROMPT_KEY], np.float32)
    array = array.reshape(len(array), pairs, 2, heads, head_dim)
    read = np.moveaxis(array[:, _read_pairs(target.layers, pairs, stacks)], 0, 2)
    # [layer, 2, prefix, heads, head_dim]
    read = _moved(read, -len(array), config.rope_theta)
    method = DeepPrompt(length=len(array), targets=(target,))
    return method, {"params": {_PREFIX_BLOCK: read}}


def _write_prefix(
    method: DeepPrompt, variables: Trained, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], _Arrays]:
    _check_prefixes(metadata.get("family", "t5"))
    names = [target.name for target in method.targets]
    if names != [_PREFIX_BLOCK]:
        raise UserError(
            f"PEFT's prefix tuning supports only {_PREFIX_BLOCK}, but this adapter has "
            f"prefixes for {', '.join(names)}; train with blocks=('self_attention',) to export it."
        )
    (target,) = method.targets
    heads, head_dim = target.outputs
    stacks = _stacks(metadata.get("family", "t5"))
    # Odd, so that 2i mod pairs differs for every layer i.
    pairs = target.layers + 1 - target.layers % 2 if stacks == 2 else target.layers
    whole = np.zeros((method.length, pairs, 2, heads, head_dim), np.float32)
    theta = float(metadata["rope_theta"]) if "rope_theta" in metadata else None
    prefixes = _moved(variables["params"][_PREFIX_BLOCK], method.length, theta)
    whole[:, _read_pairs(target.layers, pairs, stacks)] = np.moveaxis(prefixes, 2, 0)
    fields = {
        "num_virtual_tokens": method.length,
        "num_layers": pairs,
        "num_attention_heads": heads,
        "token_dim": heads * head_dim,
        "num_transformer_submodules": stacks,
        "encoder_hidden_size": heads * head_dim,
        "prefix_projection": False,
    }
    return fields, {PROMPT_KEY: whole.reshape(method.length, -1)}


def _check_prefixes(family: str) -> None:
    """Raises UserError for T5Gemma 2, whose model type PEFT 0.21 takes for Gemma 2's."""
    if family == "t5gemma2":
        raise UserError(
            "PEFT itself can't run prefix tuning of T5Gemma 2; expected a prompt, lora or ia3."
        )


class _PeftMethod(NamedTuple):
    """Method classes, and the functions that convert their variables from and to PEFT."""

    methods: tuple[type[Any], ...]
    read: Callable[[PeftAdapter, ModelConfig], tuple[Any, Trained]]
    write: Callable[[Any, Trained, Mapping[str, str]], tuple[dict[str, Any], _Arrays]]


_METHODS = {
    "LORA": _PeftMethod((LoRA, DoRA), _read_lora, _write_lora),
    "VERA": _PeftMethod((VeRA,), _read_vera, _write_vera),
    "IA3": _PeftMethod((IA3,), _read_ia3, _write_ia3),
    "PREFIX_TUNING": _PeftMethod((DeepPrompt,), _read_prefix, _write_prefix),
}
"""By PEFT's names."""


def _stacks(family: str) -> int:
    """Returns the number of stacks that PEFT counts in a model of the family."""
    return 1 if task_type_of(family) == "CAUSAL_LM" else 2


def _read_pairs(layers: int, pairs: int, stacks: int) -> list[int]:
    """Returns the index of the pair in PEFT's array that each layer reads."""
    return [stacks * layer % pairs for layer in range(layers)]


def _moved(prefixes: np.ndarray, positions: int, theta: float | None) -> np.ndarray:
    """Returns prefixes [layer, 2, prefix, heads, head_dim] with keys rotated by `positions`."""
    if theta is None:
        return prefixes
    half = prefixes.shape[-1] // 2
    frequencies = jnp.asarray(theta ** (-np.arange(half) / half), jnp.float32)
    angles = angles_of(jnp.full(prefixes.shape[2], positions), frequencies)[None]
    keys = rotated(jnp.asarray(prefixes[:, 0]), angles)
    return np.stack([np.asarray(keys), prefixes[:, 1]], axis=1)


def _paths(family: str, target: Target, name: str | None = None) -> list[str]:
    """Returns Hugging Face's paths of a target, or of module `name`, in all layers."""
    path = huggingface_modules(family)[name or target.name]
    return [path.format(layer=layer) for layer in range(target.layers)]


def _by_module(adapter: PeftAdapter) -> dict[str, _Arrays]:
    """Returns the arrays by Hugging Face's module path, then by the rest of the name."""
    found: dict[str, _Arrays] = {}
    for name, array in adapter.arrays.items():
        match = _MODULE_AND_NAME.fullmatch(name)
        module, rest = match.groups() if match else (name, "")
        found.setdefault(module, {})[rest] = array
    return found


def _take(
    modules: dict[str, _Arrays],
    paths: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    path: FilePath,
) -> list[np.ndarray]:
    """Removes the arrays at the paths of a target's layers from `modules`; returns them stacked.

    Returns one array per name, or an empty list if there are none.

    Raises:
      UserError: a layer's arrays have other names or shapes than `shapes`.
    """
    layers = {module: modules.pop(module, {}) for module in paths}
    if not any(layers.values()):
        return []
    for module, arrays in layers.items():
        if arrays.keys() != shapes.keys():
            raise UserError(
                f"The adapter {path} has {shown_names(sorted(arrays)) or 'nothing'} for {module}; "
                f"expected {' and '.join(shapes)} in every such layer of the model."
            )
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise UserError(
                    f"The adapter {path} has {name} of shape {list(arrays[name].shape)} for "
                    f"{module}; expected {list(shape)}: it was trained on another model."
                )
    return [
        np.stack([np.asarray(arrays[name], np.float32) for arrays in layers.values()])
        for name in shapes
    ]


def _check_all_taken(
    modules: Mapping[str, object], targets: Sequence[Target], path: FilePath
) -> None:
    if modules or not targets:
        raise UserError(
            f"The adapter {path} contains {shown_names(sorted(modules)) or 'nothing'}, which this "
            "model doesn't have or this method doesn't support; use the model that it was "
            "trained on."
        )


def _check_unset(adapter: PeftAdapter, fields: Sequence[str]) -> None:
    """Raises UserError if a field requests an unsupported feature."""
    for field in fields:
        value = adapter.config.get(field)
        if value not in (None, False, [], {}, "none"):
            raise UserError(
                f"The adapter {adapter.path} has {field}={shown(value)} ({CONFIG_FILE}), which "
                "isn't supported; expected it to be unset."
            )
