"""The methods by name, and how one is written down so that it can be made again.

A file of trained numbers names its method and the attributes of it; `rebuild` makes the same
method of them. How a method's numbers started is not among them: it is of no use any more.
"""

import dataclasses
import json
from typing import Any

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.json_text import parse_json
from prompt_tuning.methods.adapter import BottleneckAdapter
from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prefix import PrefixTuning
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.methods.residual import ResidualPrompt
from prompt_tuning.methods.weights import Weights
from prompt_tuning.models.targets import Target

METHODS: dict[str, type[Any]] = {
    "soft_prompt": SoftPrompt,
    "p_tuning": PTuning,
    "residual_prompt": ResidualPrompt,
    "mixed_prompt": MixedPrompt,
    "attention_mixed_prompt": AttentionMixedPrompt,
    "multitask_prompt": MultitaskPrompt,
    "prefix": PrefixTuning,
    "deep_prompt": DeepPrompt,
    "lora": LoRA,
    "ia3": IA3,
    "adapter": BottleneckAdapter,
    "weights": Weights,
}
"""Every method that a file of trained numbers can be of."""

_NOT_WRITTEN = ("parent", "name")


def method_name(method: Method) -> str:
    """Returns the name of a method; raises ValueError if it is none of `METHODS`."""
    for name, kind in METHODS.items():
        if type(method) is kind:
            return name
    raise ValueError(f"{type(method).__name__} isn't registered in {__name__}.METHODS.")


def describe(method: Method) -> str:
    """Returns the attributes of a method as JSON."""
    fields = {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)  # pyright: ignore[reportArgumentType]
        if field.name not in _NOT_WRITTEN and not field.name.endswith("initializer")
    }
    return json.dumps(fields, default=dataclasses.asdict)


def rebuild(name: str, description: str) -> Method:
    """Returns the method with this name and the attributes that `describe` wrote.

    Raises:
      UserError: there is no such method, or these aren't its attributes.
    """
    if name not in METHODS:
        raise UserError(
            f"There is no method '{name}'; expected {', '.join(METHODS)}."
            f"{did_you_mean(name, METHODS)}"
        )
    try:
        fields = {key: _value(value) for key, value in parse_json(description).items()}
        return METHODS[name](**fields)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"'{description[:100]}' doesn't describe the method {name} ({error})."
        ) from error


def _value(value: Any) -> Any:
    """Returns what JSON made of an attribute as it was: tuples, and targets."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    if isinstance(value, dict):
        return Target(**{key: _value(entry) for key, entry in value.items()})
    return value
