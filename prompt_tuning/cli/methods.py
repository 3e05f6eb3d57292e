"""`prompt-tuning methods`: compares the sizes and features of all methods for a model.

The methods are those of `configs/methods/`, with the settings of their files. No weights are
loaded; only the model's sizes are used.
"""

import dataclasses
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.analysis.methods_table import MethodFacts, method_facts, methods_table
from prompt_tuning.checkpoints.adapters.adapter_files import write_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.checkpoints.frozen.load import stored_frozen
from prompt_tuning.checkpoints.frozen.locations import shipped_models
from prompt_tuning.cli import (
    configurables,
    gin_config,
    loading,  # noqa: F401 - registers configurables
    registry,
)
from prompt_tuning.cli.gin_config import shipped_configs
from prompt_tuning.cli.parsers import parse
from prompt_tuning.data.mixtures import mixture_of
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.models.config import MODELS
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import ModelConfig
from prompt_tuning.models.t5 import Params
from prompt_tuning.parallel.mesh import make_mesh
from prompt_tuning.parallel.rules import Layout

SIZES = ("t5_1_1_small", "t5_1_1_base", "t5_1_1_large", "t5_1_1_xl", "t5_1_1_xxl")
SOURCES = 6
"""Number of source prompts of methods that mix them, as in ATTEMPT."""
MIXTURE = "superglue"
"""Mixture of multitask prompts."""
_LENGTH = 100


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table."""
    args = parse("methods", argv)
    if args.markdown and args.json:
        raise UserError("Give either --markdown or --json, not both.")
    names = args.model or (SIZES if args.all_sizes else (SIZES[0], SIZES[-1]))
    facts = {name: facts_of_all(config_of(name)) for name in names}
    if args.json:
        rows = {name: list(map(dataclasses.asdict, of_model)) for name, of_model in facts.items()}
        print(json.dumps(rows))
    else:
        print(methods_table(facts, markdown=args.markdown))


def config_of(name: str) -> ModelConfig:
    """Returns the config of an architecture or of a model that `load_frozen` accepts.

    Raises:
      UserError: it is neither.
    """
    if name in MODELS:
        return MODELS[name]
    shipped = shipped_models()
    if name not in shipped and "/" not in name and not Path(name).exists():
        known = (*MODELS, *shipped)
        raise UserError(
            f"Unknown model '{name}'; expected {', '.join(known)}, or the path or hub name of a "
            f"checkpoint.{did_you_mean(name, known)}"
        )

    return stored_frozen(name).config


def shipped_methods() -> list[str]:
    """Returns the names of the gin files of methods."""
    return sorted(path.stem for path in (shipped_configs() / "methods").glob("*.gin"))


def facts_of_all(config: ModelConfig) -> list[MethodFacts]:
    """Returns the facts of every shipped method."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            method_facts(name, method_of_sizes(name, config, Path(folder)), config)
            for name in shipped_methods()
        ]


def method_of_sizes(
    name: str, config: ModelConfig, folder: Path, params: Params | None = None
) -> Method:
    """Returns a shipped method, as configured by its file, for a model of these sizes.

    Args:
      name: the file's stem.
      config: the model's config.
      folder: for placeholder files of source prompts, if the method needs any.
      params: the model's weights; if None, a method that trains weights has only their shapes.
    """
    file = gin_config.shipped_configs() / "methods" / f"{name}.gin"
    bindings = [
        (f"{each}.initializer", "@random_uniform")
        for each in registry.configurables_with("initializer")
        if each not in ("deep_prompt", "weights")
    ]
    needed = {"SOURCE_PROMPTS": _sources, "MULTITASK_PROMPT": _multitask_prompt}
    for macro, write in needed.items():
        if re.search(rf"^{macro} = %gin.REQUIRED", file.read_text(), re.MULTILINE):
            bindings.append((macro, repr(write(config, folder))))
    if "%MIXTURE_OR_TASK_NAME" in file.read_text():
        bindings.append(("MIXTURE_OR_TASK_NAME", repr(MIXTURE)))
    if "%PARTS" in file.read_text():
        tasks = mixture_of(MIXTURE).tasks
        bindings.append(("PARTS", repr([("en", task.name) for task in tasks])))
    gin_config.load([str(file)], bindings)
    base = configurables.Base(
        config=config,
        params=abstract_params(config) if params is None else params,
        vocabulary=cast(Any, None),
        layout=Layout(mesh=make_mesh(), axes_of=lambda name: ()),
    )
    return gin_config.parameters("train")["method"](base)


def _sources(config: ModelConfig, folder: Path) -> list[str]:
    path = folder / "source.npy"
    np.save(path, np.ones((_LENGTH, config.embed_dim), np.float32))
    return [str(path)] * SOURCES


def _multitask_prompt(config: ModelConfig, folder: Path) -> str:
    method = MultitaskPrompt(length=_LENGTH, embed_dim=config.embed_dim, tasks=2)
    shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), {}))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    path = folder / "multitask.safetensors"
    return str(write_adapter(path, cast(Any, method), ones, PromptMetadata()))
