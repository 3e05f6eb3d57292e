"""Prefix-tuning adapters of PEFT: `prompt_embeddings` [prefix, num_layers * 2 * token_dim].

For a T5 PEFT has prefixes in the decoder's self-attention alone, and there layer i doesn't read the
i-th of its num_layers pairs of keys and values: it repeats them all, for two submodules, and deals
the result out to layers by fours, of which it uses the first two (PEFT 0.21,
`PeftModel.get_prompt`). So layer i reads pair 2i mod num_layers; where num_layers is even, half of
what PEFT trains is never read and two layers share each other pair. That is what is computed here,
too. Any prefix can be written all the same, with an odd num_layers: the model's, or one more and a
pair that no layer reads. PEFT's token_dim has to be heads * head_dim: its own default, the model's
width, fails on a model where that is another number, such as T5 1.1 Small; ours works on all.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.peft import CONFIG_FILE, PROMPT_KEY, Adapter, read_adapter
from prompt_tuning.checkpoints.peft_layers import check_unset, written_config
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown, shown_names
from prompt_tuning.methods.base import Trained
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.targets import attention_blocks

BLOCK = "decoder/self_attention"
"""The only block where PEFT has prefixes in a T5."""


def load_peft_prefix(path: Path, config: T5Config) -> tuple[DeepPrompt, Trained, Adapter]:
    """Returns a prefix-tuning adapter as a deep prompt, its variables, and the adapter.

    Raises:
      UserError: as `peft.read_adapter`; or it doesn't fit this model, in PEFT neither.
    """
    adapter = read_adapter(path, peft_type="PREFIX_TUNING")
    check_unset(adapter, ("modules_to_save",), path)
    (target,) = (each for each in attention_blocks(config) if each.name == BLOCK)
    heads, head_dim = target.outputs
    fields = ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim")
    length, pairs, *sizes = (adapter.config.get(field) for field in fields)
    if sizes != [heads, heads * head_dim]:
        raise UserError(
            f"The adapter {path} has prefixes of num_attention_heads={shown(sizes[0])} and "
            f"token_dim={shown(sizes[1])} ({CONFIG_FILE}); expected {heads} and {heads * head_dim} "
            f"for the model '{config.name}'."
        )
    submodules = adapter.config.get("num_transformer_submodules", 2)
    if type(pairs) is not int or pairs < target.layers or submodules not in (None, 2):
        raise UserError(
            f"The adapter {path} has num_layers={shown(pairs)} and num_transformer_submodules="
            f"{shown(submodules)} ({CONFIG_FILE}), with which PEFT itself can't run the model "
            f"'{config.name}'; expected at least {target.layers}, and 2."
        )
    array = adapter.arrays.get(PROMPT_KEY)
    width = pairs * 2 * heads * head_dim
    if sorted(adapter.arrays) != [PROMPT_KEY] or array is None or array.shape != (length, width):
        shape = "" if array is None else f" of shape {list(array.shape)}"
        raise UserError(
            f"The adapter {path} holds {shown_names(sorted(adapter.arrays)) or 'nothing'}{shape}; "
            f"expected {PROMPT_KEY} alone, of shape [{shown(length)}, {width}]."
        )
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"The adapter {path} has values that are NaN or infinite.")
    each = array.reshape(len(array), pairs, 2, heads, head_dim)
    read = each[:, _read_pairs(target.layers, pairs)]
    method = DeepPrompt(length=len(array), targets=(target,))
    return method, {"params": {BLOCK: jnp.asarray(np.moveaxis(read, 0, 2))}}, adapter


def peft_prefix(method: DeepPrompt, trained: Trained, base_model: str | None) -> Adapter:
    """Returns the adapter with which PEFT computes what we do with a method's variables.

    Raises:
      UserError: it has prefixes of other blocks.
    """
    names = [target.name for target in method.targets]
    if names != [BLOCK]:
        raise UserError(
            f"PEFT's prefix tuning of a T5 reaches {BLOCK} alone, and this has prefixes of "
            f"{', '.join(names)}; train with blocks=('self_attention',) to exchange it."
        )
    (target,) = method.targets
    heads, head_dim = target.outputs
    # Odd, so that going by twos every layer finds a pair of its own.
    pairs = target.layers + 1 - target.layers % 2
    whole = np.zeros((method.length, pairs, 2, heads, head_dim), np.float32)
    keys_values = np.moveaxis(np.asarray(trained["params"][BLOCK], np.float32), 2, 0)
    whole[:, _read_pairs(target.layers, pairs)] = keys_values
    config = written_config(
        "PREFIX_TUNING",
        base_model,
        num_virtual_tokens=method.length,
        num_layers=pairs,
        num_attention_heads=heads,
        token_dim=heads * head_dim,
        num_transformer_submodules=2,
        encoder_hidden_size=heads * head_dim,
        prefix_projection=False,
    )
    return Adapter(
        config=config, arrays={PROMPT_KEY: whole.reshape(method.length, -1)}, metadata={}
    )


def _read_pairs(layers: int, pairs: int) -> list[int]:
    """Returns which of PEFT's pairs each layer reads."""
    return [2 * layer % pairs for layer in range(layers)]
