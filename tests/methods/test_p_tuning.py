"""The network that makes P-tuning's prompt is PEFT's, whose weights give the same prompt."""

import jax
import numpy as np
import pytest
import torch
from peft import PromptEncoder, PromptEncoderConfig

from prompt_tuning.methods.p_tuning import PTuning

LENGTH, EMBED, HIDDEN = 5, 8, 6


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_pefts_weights_give_pefts_prompt(encoder):
    torch.manual_seed(0)
    theirs = PromptEncoder(
        PromptEncoderConfig(
            peft_type="P_TUNING",
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=LENGTH,
            token_dim=EMBED,
            num_transformer_submodules=1,
            encoder_reparameterization_type=encoder.upper(),
            encoder_hidden_size=HIDDEN,
        )
    )
    with torch.no_grad():
        expected = theirs(torch.arange(LENGTH)[None])[0].numpy()
    weights = {name: value.numpy() for name, value in theirs.state_dict().items()}

    method = PTuning(length=LENGTH, embed_dim=EMBED, hidden_dim=HIDDEN, encoder=encoder)
    params = {"embedding": weights["embedding.weight"]}
    dense = [name for name in weights if name.startswith("mlp_head") and name.endswith("weight")]
    for place, name in enumerate(dense):
        ours = "out" if place == len(dense) - 1 else f"dense_{place}"
        bias = weights[name.replace("weight", "bias")]
        params[ours] = {"kernel": weights[name].T, "bias": bias}
    for layer in range(2 if encoder == "lstm" else 0):
        for suffix, direction in (("", "forward"), ("_reverse", "backward")):
            params[f"lstm_{layer}_{direction}"] = lstm_cell(weights, f"l{layer}{suffix}")

    made = jax.eval_shape(method.init, jax.random.key(0), {})["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, made)
    folded, variables = method.fold({"params": params})
    assert folded.length == LENGTH
    np.testing.assert_allclose(variables["params"]["prompt"], expected, rtol=1e-5, atol=1e-6)


def lstm_cell(weights, which):
    """Flax's names for a direction of a layer: i, f, g, o, which torch keeps in one matrix.

    Torch adds two biases where one would do.
    """
    cell = {}
    biases = sum(weights[f"lstm_head.bias_{part}_{which}"] for part in ("ih", "hh"))
    for gate, rows in zip("ifgo", np.arange(4 * HIDDEN).reshape(4, HIDDEN), strict=True):
        cell[f"i{gate}"] = {"kernel": weights[f"lstm_head.weight_ih_{which}"][rows].T}
        cell[f"h{gate}"] = {
            "kernel": weights[f"lstm_head.weight_hh_{which}"][rows].T,
            "bias": biases[rows],
        }
    return cell
