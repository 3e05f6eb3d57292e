"""The names and shapes of a T5's parameters, told from its config alone.

A file of weights is checked against them before anything is read. `t5.abstract_params` finds them
too, by tracing the model, which takes a second of every command's start; a test holds the two
equal.
"""

from prompt_tuning.models.config import T5Config


def parameter_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by its "/"-joined path, sorted; layers are stacked.

    They are those in files, where nothing is quantized.
    """
    embed = config.embed_dim
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedder/embedding": (config.vocab_size, embed),
        **_stack(config, "encoder", config.num_encoder_layers, ("attention",)),
        **_stack(
            config,
            "decoder",
            config.num_decoder_layers,
            ("self_attention", "encoder_decoder_attention"),
        ),
    }
    if not config.tie_embeddings:
        shapes["decoder/logits_dense/kernel"] = (embed, config.vocab_size)
    return dict(sorted(shapes.items()))


_NORM_BEFORE = {
    "attention": "pre_attention_layer_norm",
    "self_attention": "pre_self_attention_layer_norm",
    "encoder_decoder_attention": "pre_cross_attention_layer_norm",
}


def _stack(
    config: T5Config, name: str, layers: int, attentions: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    embed, mlp, heads = config.embed_dim, config.mlp_dim, config.num_heads
    shapes: dict[str, tuple[int, ...]] = {"pre_mlp_layer_norm/scale": (embed,)}
    for attention in attentions:
        shapes[f"{_NORM_BEFORE[attention]}/scale"] = (embed,)
        for projection in ("query", "key", "value"):
            shapes[f"{attention}/{projection}/kernel"] = (embed, heads, config.head_dim)
        shapes[f"{attention}/out/kernel"] = (heads, config.head_dim, embed)
    for projection in ("wi_0", "wi_1") if config.gated_mlp else ("wi",):
        shapes[f"mlp/{projection}/kernel"] = (embed, mlp)
    shapes["mlp/wo/kernel"] = (mlp, embed)
    return {
        f"{name}/{name}_norm/scale": (embed,),
        f"{name}/relpos_bias/rel_embedding": (heads, config.relative_attention_num_buckets),
        **{f"{name}/layers/{inner}": (layers, *shape) for inner, shape in shapes.items()},
    }
