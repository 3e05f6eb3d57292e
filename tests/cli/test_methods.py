"""The table of methods is what the code itself says, and the docs show it."""

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.cli import methods
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.methods import facts_of_all, shipped_methods
from prompt_tuning.methods.registry import METHODS
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.training.optimizers import adafactor


@pytest.fixture(scope="module")
def facts():
    return {each.name: each for each in facts_of_all(get_config("t5_1_1_small"))}


def test_counts_are_those_of_the_papers_formulas(facts):
    """On T5 1.1 Small: width 512, 8 + 8 layers, 6 heads of 64, feed-forward 1,024."""
    attention = 6 * 64
    blocks = 8 + 8 + 8  # self-attention of both stacks, and that to the encoder
    assert facts["soft_prompt"].trained == 100 * 512
    assert facts["lora"].trained == blocks * 2 * 8 * (512 + attention)
    assert facts["ia3"].trained == blocks * 2 * attention + 16 * 1024
    assert facts["deep_prompt"].trained == blocks * 2 * facts_length("deep_prompt") * attention
    assert facts["norm_scales"].trained == 512 * (2 * 8 + 3 * 8 + 2)
    assert facts["model_tuning"].trained == 76_961_152
    assert facts["model_tuning"].share == 1.0


def facts_length(name: str) -> int:
    from prompt_tuning.cli import gin_config

    gin_config.load([f"methods/{name}.gin"])
    return gin_config.macro("PROMPT_LENGTH")


def test_what_helps_in_training_alone_is_not_saved(facts):
    for name in ("p_tuning", "residual_prompt", "multitask_prompt_adapted"):
        assert facts[name].saved_bytes <= facts["soft_prompt"].saved_bytes < 4 * facts[name].trained
    assert facts["prefix"].saved_bytes == 4 * 2 * 24 * 10 * 384


def test_what_can_be_done_with_them(facts):
    merging = {name for name, each in facts.items() if each.merges}
    assert merging == {"lora", "dora", "vera", "ia3", "norm_scales", "model_tuning"}
    alone = {name for name, each in facts.items() if not each.batches}
    assert alone == {"norm_scales", "model_tuning"}
    assert {name for name, each in facts.items() if not each.quantizes} == {"model_tuning"}


def test_all_are_trained_in_float32_whatever_the_dtype_of_the_weights(monkeypatch, tmp_path):
    """And so is what the paper's optimizer keeps of them."""
    config = get_config("t5_1_1_small")
    in_bfloat16 = abstract_params(config, Compute(param_dtype="bfloat16"))
    monkeypatch.setattr(methods, "abstract_params", lambda config: in_bfloat16)
    for name in shipped_methods():
        method = methods.method_of_sizes(name, config, tmp_path)
        trained = jax.eval_shape(lambda method=method: method.init(jax.random.key(0), {}))
        state = jax.eval_shape(adafactor(0.3).init, trained)
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((trained, state))}
        assert dtypes <= {jnp.dtype("float32"), jnp.dtype("int32")}, name


def test_every_method_has_a_file():
    files = set(shipped_methods())
    assert files >= METHODS.keys() - {"weights"}


def test_the_docs_show_the_table(checkout, capsys):
    """docs/methods.md has it whole, and the README names each method."""
    main(["methods", "--all_sizes", "--markdown"])
    table = capsys.readouterr().out.strip()
    assert table in (checkout / "docs" / "methods.md").read_text(encoding="utf-8")
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    _, _, *lines = table.splitlines()
    for line in lines:
        assert f"`{line.strip('| ').split(' | ')[0]}`" in readme, line


def test_a_model_that_is_not_there():
    from prompt_tuning.errors import UserError

    with pytest.raises(UserError, match="t5_1_1_small"):
        main(["methods", "--model", "t5_1_1_smal"])
