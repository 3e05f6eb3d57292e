"""Parameter-efficient prompt tuning of frozen T5 models in JAX (Lester et al., 2021).

    import prompt_tuning as pt

    base = pt.load("tinyworld_small")
    method = pt.soft_prompt(length=20, initializer=pt.sampled_vocabulary())
    run = pt.train(base, method, "tinyworld_rte", folder="runs/rte", steps=100, eval_every=20)
    print(run.score, run.predict(["rte hypothesis: ... premise: ..."]))

docs/api.md describes every name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_tuning.checkpoints.adapters.adapter_files import Adapter
    from prompt_tuning.checkpoints.adapters.prompt_files import (
        PromptMetadata,
        load_prompt,
        save_prompt,
    )
    from prompt_tuning.data.tasks.task import Task, register_task
    from prompt_tuning.errors import UserError
    from prompt_tuning.evaluation.predictor import Answer, Example, Predictor
    from prompt_tuning.methods.adapter import adapter
    from prompt_tuning.methods.attention_mixed import attention_mixed_prompt, mixed_prompt
    from prompt_tuning.methods.deep_prompt import deep_prompt
    from prompt_tuning.methods.dept import dept
    from prompt_tuning.methods.dora import dora
    from prompt_tuning.methods.factored import factored_prompt
    from prompt_tuning.methods.ia3 import ia3
    from prompt_tuning.methods.llama_adapter import llama_adapter
    from prompt_tuning.methods.lora import lora
    from prompt_tuning.methods.multitask import adapted_multitask_prompt, multitask_prompt
    from prompt_tuning.methods.p_tuning import p_tuning
    from prompt_tuning.methods.prefix import prefix
    from prompt_tuning.methods.prompt import soft_prompt
    from prompt_tuning.methods.recycling import recycle
    from prompt_tuning.methods.residual import residual_prompt
    from prompt_tuning.methods.smop import smop
    from prompt_tuning.methods.vera import vera
    from prompt_tuning.methods.weights import weights
    from prompt_tuning.recipes.api import evaluate, load, train, train_many, train_on_batches
    from prompt_tuning.recipes.choices import (
        adafactor,
        adamw,
        constant,
        cosine_decay,
        linear_warmup,
        rsqrt_decay,
    )
    from prompt_tuning.recipes.ensembles import ensemble, predictor
    from prompt_tuning.recipes.frozen_base import Base
    from prompt_tuning.recipes.initializers import (
        class_label,
        combined,
        from_file,
        from_string,
        most_similar,
        random_uniform,
        recycled,
        sampled_vocabulary,
    )
    from prompt_tuning.recipes.publishing import publish
    from prompt_tuning.recipes.run import Run, load_run
    from prompt_tuning.training.run import Evaluation

__all__ = [
    "Adapter",
    "Answer",
    "Base",
    "Evaluation",
    "Example",
    "Predictor",
    "PromptMetadata",
    "Run",
    "Task",
    "UserError",
    "adafactor",
    "adamw",
    "adapted_multitask_prompt",
    "adapter",
    "attention_mixed_prompt",
    "class_label",
    "combined",
    "constant",
    "cosine_decay",
    "deep_prompt",
    "dept",
    "dora",
    "ensemble",
    "evaluate",
    "factored_prompt",
    "from_file",
    "from_string",
    "ia3",
    "linear_warmup",
    "llama_adapter",
    "load",
    "load_prompt",
    "load_run",
    "lora",
    "mixed_prompt",
    "most_similar",
    "multitask_prompt",
    "p_tuning",
    "predictor",
    "prefix",
    "publish",
    "random_uniform",
    "recycle",
    "recycled",
    "register_task",
    "residual_prompt",
    "rsqrt_decay",
    "sampled_vocabulary",
    "save_prompt",
    "smop",
    "soft_prompt",
    "train",
    "train_many",
    "train_on_batches",
    "vera",
    "weights",
]
__version__ = "0.1.0"

_MODULES = {
    "checkpoints.adapters.adapter_files": ("Adapter",),
    "checkpoints.adapters.prompt_files": ("PromptMetadata", "load_prompt", "save_prompt"),
    "data.tasks.task": ("Task", "register_task"),
    "errors": ("UserError",),
    "evaluation.predictor": ("Answer", "Example", "Predictor"),
    "methods.adapter": ("adapter",),
    "methods.attention_mixed": ("attention_mixed_prompt", "mixed_prompt"),
    "methods.deep_prompt": ("deep_prompt",),
    "methods.dept": ("dept",),
    "methods.dora": ("dora",),
    "methods.factored": ("factored_prompt",),
    "methods.ia3": ("ia3",),
    "methods.llama_adapter": ("llama_adapter",),
    "methods.lora": ("lora",),
    "methods.multitask": ("adapted_multitask_prompt", "multitask_prompt"),
    "methods.p_tuning": ("p_tuning",),
    "methods.prefix": ("prefix",),
    "methods.prompt": ("soft_prompt",),
    "methods.recycling": ("recycle",),
    "methods.residual": ("residual_prompt",),
    "methods.smop": ("smop",),
    "methods.vera": ("vera",),
    "methods.weights": ("weights",),
    "recipes.api": ("evaluate", "load", "train", "train_many", "train_on_batches"),
    "recipes.choices": (
        *("adafactor", "adamw", "constant", "cosine_decay", "linear_warmup", "rsqrt_decay"),
    ),
    "recipes.ensembles": ("ensemble", "predictor"),
    "recipes.frozen_base": ("Base",),
    "recipes.initializers": (
        *("class_label", "from_file", "from_string", "most_similar", "random_uniform"),
        *("sampled_vocabulary", "combined", "recycled"),
    ),
    "recipes.publishing": ("publish",),
    "recipes.run": ("Run", "load_run"),
    "training.run": ("Evaluation",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Imports on first use, so that `import prompt_tuning` and `--help` don't load JAX.
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"prompt_tuning.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
