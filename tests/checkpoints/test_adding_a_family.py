"""docs/adding_a_family.md: its family has `transformers`' logits, decodes, and trains a prompt."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.checkpoints.frozen.huggingface_config import READERS
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.families import MODULES, model_of
from prompt_tuning.models.targets import projections, select_targets
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SOURCE = np.array([[11, 12, 13, 14, 15], [21, 22, 23, -1, -1]], np.int32)
TARGETS = np.array([[31, 32, 33], [41, 42, 43]], np.int32)


@pytest.fixture
def granite(checkout, tmp_path):
    """The page's program, run; its registrations end with the test."""
    page = (checkout / "docs" / "adding_a_family.md").read_text(encoding="utf-8")
    (tmp_path / "granite.py").write_text(page.split("```python\n")[1].split("```")[0])
    known = dict(MODULES), dict(READERS)
    yield runpy.run_path(str(tmp_path / "granite.py"), run_name="granite")
    for registry, before in zip((MODULES, READERS), known, strict=True):
        registry.clear()
        registry.update(before)


def test_the_page_s_family(granite, tmp_path):
    torch.manual_seed(0)
    theirs = transformers.GraniteForCausalLM(
        transformers.GraniteConfig(
            vocab_size=60,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            embedding_multiplier=3.0,
            attention_multiplier=0.4,
            residual_multiplier=0.7,
            logits_scaling=2.0,
            eos_token_id=7,
        )
    ).eval()
    for parameter in theirs.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    theirs.save_pretrained(tmp_path / "model")
    config, params = load_frozen(tmp_path / "model")
    model = model_of(config)
    assert type(model) is granite["Granite"] and config.family == "granite"

    batch = {
        "encoder_input_tokens": jnp.asarray(SOURCE),
        "decoder_input_tokens": jnp.pad(jnp.asarray(TARGETS), ((0, 0), (1, 0)))[:, :-1],
    }
    logits = np.asarray(model.apply({"params": params}, batch))
    for row, length in enumerate((5, 3)):
        tokens = np.concatenate([SOURCE[row, :length], TARGETS[row]])
        with torch.no_grad():
            expected = theirs(torch.tensor(tokens[None]).long()).logits[0, length - 1 : -1]
        np.testing.assert_allclose(logits[row], expected, atol=1e-4)

        with torch.no_grad():
            answer = theirs.generate(
                torch.tensor(SOURCE[row : row + 1, :length]).long(),
                max_new_tokens=4,
                do_sample=False,
                pad_token_id=0,
            )[0, length:]
        options = DecodingOptions(max_length=4)
        found = generate(model, params, batch["encoder_input_tokens"], options=options)[row]
        np.testing.assert_array_equal(np.asarray(found)[: len(answer)], answer)

    method = LoRA(targets=select_targets(projections(config), ["query", "value"]), rank=2)
    batch |= {"decoder_target_tokens": jnp.asarray(TARGETS)}
    batch |= {"decoder_loss_weights": jnp.ones(TARGETS.shape)}
    optimizer = optax.adam(0.01)
    state = TrainState.create(method.init(jax.random.key(0), batch), optimizer)
    step = make_train_step(prompt_loss_fn(model, method, LossOptions()), optimizer)
    losses = []
    for _ in range(5):
        state, metrics = step(state, params, batch, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
