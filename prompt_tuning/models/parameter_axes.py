"""The logical axes of each of T5's parameters, by its name: what a layout on devices is told in.

    parameter_axes("encoder/layers/mlp/wo/kernel") == ("layer", "mlp", "embed")

Names of axes are those of `prompt_tuning.axes`; which mesh axis each is split over is decided in
`prompt_tuning.parallel.rules`.
"""

from prompt_tuning.axes import BLOCKS, BUCKETS, EMBED, HEAD_DIM, HEADS, LAYER, MLP, VOCAB

Axes = tuple[str | None, ...]
"""A logical axis for each axis of an array; None for one that is never split."""

# By the end of the name, the layers' own axis left out.
_AXES: dict[str, Axes] = {
    "token_embedder/embedding": (VOCAB, EMBED),
    "logits_dense/kernel": (EMBED, VOCAB),
    "relpos_bias/rel_embedding": (HEADS, BUCKETS),
    "query/kernel": (EMBED, HEADS, HEAD_DIM),
    "key/kernel": (EMBED, HEADS, HEAD_DIM),
    "value/kernel": (EMBED, HEADS, HEAD_DIM),
    "out/kernel": (HEADS, HEAD_DIM, EMBED),
    "mlp/wi/kernel": (EMBED, MLP),
    "mlp/wi_0/kernel": (EMBED, MLP),
    "mlp/wi_1/kernel": (EMBED, MLP),
    "mlp/wo/kernel": (MLP, EMBED),
    # Norms: a few kilobytes that every device keeps, rather than wait for.
    "norm/scale": (None,),
}


def parameter_axes(name: str) -> Axes:
    """Returns the logical axes of a parameter of `models.t5.T5` by its "/"-joined name."""
    # A quantized kernel (quantization.py) lies as the kernel does, its scales block by block.
    kernel = name.removesuffix("_codes").removesuffix("_scales")
    for ending, axes in _AXES.items():
        if kernel.endswith(ending):
            if name.endswith("_scales"):
                axes = tuple(BLOCKS if axis == EMBED else axis for axis in axes)
            return (LAYER, *axes) if "/layers/" in name else axes
    raise ValueError(f"The parameter {name!r} has no line in {__name__}._AXES.")
