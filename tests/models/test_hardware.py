"""The choice of dtype by hardware, and that scores don't depend on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prompt_tuning
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.hardware import cpu_flags, fastest_matmul_dtype
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu sse avx2", "float32"),
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("avx2 amx_bf16 amx_tile", "bfloat16"),
    ],
)
def test_a_cpu_is_asked_for_its_flags(tmp_path, flags, dtype):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: X\nflags\t\t: {flags}\nbugs\t\t: none\n")
    assert cpu_flags(cpuinfo) == set(flags.split())
    assert fastest_matmul_dtype("cpu", cpuinfo) == dtype


def test_without_linux_float32_is_safe(tmp_path):
    assert fastest_matmul_dtype("cpu", tmp_path / "nothing") == "float32"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_have_bfloat16(platform, tmp_path):
    assert fastest_matmul_dtype(platform, tmp_path / "nothing") == "bfloat16"


@pytest.mark.slow
def test_scores_of_the_shipped_model_agree(checkout):
    """The answers to TinyWorld's BoolQ, with label words' embeddings for a prompt."""
    config, params = load_frozen("tinyworld_small")
    assets = prompt_tuning.__path__[0]
    vocabulary = Vocabulary(f"{assets}/assets/tinyworld/tinyworld.model")
    task = get_task("tinyworld_boolq")
    examples = list(task.examples("validation"))[:128]
    inputs = np.zeros((len(examples), 64), np.int32)
    for row, example in zip(inputs, examples, strict=True):
        ids = [*vocabulary.encode(example.inputs)[:63], 1]
        row[: len(ids)] = ids
    labels = jnp.asarray(vocabulary.encode_labels(task.labels))
    prompt = params["token_embedder"]["embedding"][None, 5:15]

    def scores(matmul_dtype):
        model = T5(config, Compute(matmul_dtype=matmul_dtype))
        found = jax.jit(
            lambda params, prompt: label_log_likelihoods(
                model, params, jnp.asarray(inputs), Injection(encoder_prompt=prompt), labels
            )
        )(params, prompt)
        return np.asarray(found)

    exact, rounded = scores("float32"), scores("bfloat16")
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
    answers = {
        name: [task.labels[row] for row in found.argmax(axis=1)]
        for name, found in (("float32", exact), ("bfloat16", rounded))
    }
    metadata = [{"targets": example.targets, **example.metadata} for example in examples]
    accuracy = {name: task.evaluate(metadata, of)["accuracy"] for name, of in answers.items()}
    assert abs(accuracy["float32"] - accuracy["bfloat16"]) <= 2 / len(examples)
    # Both answers must occur, or agreement would say nothing.
    assert len(set(answers["float32"])) == 2
    assert sum(map(str.__ne__, *answers.values())) <= 2
