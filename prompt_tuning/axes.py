"""Names of array axes in annotations, sharding rules and documentation.

Einsum letters are in parentheses. Lengths count tokens.

    batch       (b)  examples
    source      (s)  encoder input positions, including a prepended prompt
    target      (t)  decoder positions
    prompt      (p)  soft-prompt positions ("virtual tokens")
    embed       (d)  the model's width, d_model
    heads       (h)  attention heads
    head_dim    (k)  width of one head
    mlp         (f)  hidden width of the feed-forward block, d_ff
    vocab       (v)  rows of the embedding table, padded to a multiple of 128 by T5
    layer       (l)  stacked transformer layers
    buckets          relative position buckets
    blocks           runs of `embed` that share a scale in a quantized kernel
"""

BATCH = "batch"
SOURCE = "source"
TARGET = "target"
PROMPT = "prompt"
EMBED = "embed"
HEADS = "heads"
HEAD_DIM = "head_dim"
MLP = "mlp"
VOCAB = "vocab"
LAYER = "layer"
BUCKETS = "buckets"
BLOCKS = "blocks"
