"""The places in the layers that a method can reach into, and their sizes.

A method is told of them as values, since it knows no model:

    targets = select_targets(projections(config), ("attention/query", "attention/value"))

Names are those of `injection.py`: "encoder/attention/query", "decoder/mlp/wo".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.config import T5Config

_Axes = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A module that every layer of a stack has.

    Attributes:
      name: "STACK/MODULE".
      layers: of the stack.
      inputs: the axes that it takes, without batch and length.
      outputs: those that it gives.
    """

    name: str
    layers: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """The numbers of a projection's kernel in all layers."""
        return self.layers * math.prod(self.inputs) * math.prod(self.outputs)


ATTENTION = {
    "encoder": ("attention",),
    "decoder": ("self_attention", "encoder_decoder_attention"),
}
"""The attention blocks of a stack's layers."""


def projections(config: T5Config) -> tuple[Target, ...]:
    """Returns every matrix product of the layers that has a kernel."""
    embed, heads, mlp = _axes(config)
    attention = {"query": (embed, heads), "key": (embed, heads), "value": (embed, heads)}
    attention["out"] = (heads, embed)
    wide = ("wi_0", "wi_1") if config.gated_mlp else ("wi",)
    feed_forward = {**dict.fromkeys(wide, (embed, mlp)), "wo": (mlp, embed)}
    return _targets(
        config,
        lambda block: feed_forward if block == "mlp" else attention,
    )


def attention_blocks(config: T5Config) -> tuple[Target, ...]:
    """Returns the attention blocks; `outputs` are the axes of their keys, [heads, head_dim]."""
    embed, heads, _ = _axes(config)
    return _targets(config, lambda block: {} if block == "mlp" else {"": (embed, heads)})


def scalable(config: T5Config) -> tuple[Target, ...]:
    """Returns what can be multiplied by factors: keys, values and feed-forward hidden layers."""
    embed, heads, mlp = _axes(config)
    keys_and_values = {"key": (embed, heads), "value": (embed, heads)}
    return _targets(
        config, lambda block: {"hidden": (embed, mlp)} if block == "mlp" else keys_and_values
    )


def blocks(config: T5Config) -> tuple[Target, ...]:
    """Returns the attention and feed-forward blocks, each from `embed` to `embed`."""
    embed, _, _ = _axes(config)
    return _targets(config, lambda block: {"": (embed, embed)})


def select_targets(targets: Sequence[Target], endings: Sequence[str]) -> tuple[Target, ...]:
    """Returns the targets whose names end as any of `endings`, in the order of `targets`.

    An ending is a whole part of a name or several: "query" is every query, "attention/query" the
    encoder's alone, "encoder" nothing.

    Raises:
      UserError: an ending fits no target.
    """
    for ending in endings:
        if not any(_ends(target.name, ending) for target in targets):
            known = sorted({part for t in targets for part in (t.name, t.name.split("/")[-1])})
            raise UserError(
                f"The model has nothing called '{ending}' to reach into; expected, for example, "
                f"{', '.join(sorted({t.name.split('/')[-1] for t in targets}))}."
                f"{did_you_mean(ending, known)}"
            )
    return tuple(t for t in targets if any(_ends(t.name, ending) for ending in endings))


def _ends(name: str, ending: str) -> bool:
    return f"/{name}".endswith(f"/{ending}")


def _axes(config: T5Config) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return (config.embed_dim,), (config.num_heads, config.head_dim), (config.mlp_dim,)


def _targets(
    config: T5Config, modules_of: Callable[[str], Mapping[str, tuple[_Axes, _Axes]]]
) -> tuple[Target, ...]:
    """Returns the modules of every block, by their names in it; "" is the block itself."""
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    return tuple(
        Target(
            name=f"{stack}/{block}/{module}".rstrip("/"),
            layers=layers[stack],
            inputs=inputs,
            outputs=outputs,
        )
        for stack, attention in ATTENTION.items()
        for block in (*attention, "mlp")
        for module, (inputs, outputs) in modules_of(block).items()
    )
