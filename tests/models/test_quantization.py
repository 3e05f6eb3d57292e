"""Quantized kernels: how far from the kernels, and a model of them against one of floats.

Over emulated devices they are in tests/parallel/test_emulated_devices.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import SMALL

from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.initialization import abstract_params, init_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.models.quantization import (
    NF4,
    QuantizedKernel,
    dequantize_params,
    quantize,
    quantize_params,
    quantize_stored,
)
from prompt_tuning.models.t5 import T5

FORMATS = ("int8", "nf4")
FLOAT = dataclasses.replace(SMALL, vocab_size=40, mlp_dim=12, num_encoder_layers=2)
INT8, NF4_COMPUTE = (Compute(quantization=to, quantization_block=8) for to in FORMATS)
COMPUTES = {"int8": INT8, "nf4": NF4_COMPUTE}

# QLoRA (Dettmers et al., 2023), appendix E.
PUBLISHED = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]


@pytest.fixture(scope="module")
def floats():
    return init_params(FLOAT, jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    source = rng.integers(2, 40, (3, 7)).astype(np.int32)
    source[1, 4:] = 0
    return {
        "encoder_input_tokens": jnp.asarray(source),
        "decoder_input_tokens": jnp.asarray(rng.integers(2, 40, (3, 4)).astype(np.int32)),
    }


@pytest.fixture(scope="module")
def prompt():
    return jax.random.normal(jax.random.key(1), (1, 4, 16))


# Compiled quickly: what is computed is the same.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@functools.partial(jax.jit, compiler_options=QUICKLY)
def gradient_and_logits(frozen, batch, prompt):
    def loss(prompt):
        injection = Injection(encoder_prompt=prompt)
        logits = T5(FLOAT).apply({"params": frozen}, batch, injection)
        return jax.nn.logsumexp(logits).sum(), logits

    return jax.grad(loss, has_aux=True)(prompt)


def test_nf4_is_the_published_codebook():
    assert len(NF4) == 16 and sorted(set(NF4)) == list(NF4)
    assert (NF4[0], NF4[7], NF4[-1]) == (-1, 0, 1)
    np.testing.assert_allclose(NF4, PUBLISHED, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, -2, -3])
@pytest.mark.parametrize("to", FORMATS)
def test_a_kernel_comes_back_within_half_a_step_of_its_block(to, axis):
    shape = np.roll((16, 6, 10), axis + 3).tolist()
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kernel[(0,) * 3] = 20.0  # spoils its own block alone
    blocked = np.moveaxis(kernel, axis, -1)
    blocked[-1, -1, -8:] = 0.0
    found = quantize(jnp.asarray(kernel), to=to, block=8, axis=axis)
    assert found.codes.dtype == {"int8": jnp.int8, "nf4": jnp.uint8}[to]
    assert found.codes.shape[axis] == {"int8": 16, "nf4": 8}[to]
    assert found.scales.shape[axis] == 2

    largest = np.abs(blocked.reshape(*blocked.shape[:-1], 2, 8)).max(-1, keepdims=True)
    half = 1 / 254 if to == "int8" else np.diff(NF4).max() / 2
    back = np.moveaxis(np.asarray(found.dequantize()), axis, -1)
    error = np.abs(back - blocked).reshape(*largest.shape[:-1], 8)
    # Scales are rounded to bfloat16, by 2^-9 of themselves at most.
    assert (error <= largest * (half + 2**-9) + 1e-7).all()
    assert (back[-1, -1, -8:] == 0).all()


@pytest.mark.parametrize("to", FORMATS)
def test_what_a_code_says_is_coded_as_it_was(to):
    """The nearest code is chosen: values on the grid stay, in the order of the kernel."""
    shares = np.arange(-127, 129, 2) / 127 if to == "int8" else np.tile(NF4, 8)
    grid = np.random.default_rng(0).permutation(np.float32(shares).reshape(2, 64).T).T
    grid[:, 0] = 1.0
    back = quantize(jnp.asarray(0.5 * grid), to=to, block=64, axis=-1).dequantize()
    np.testing.assert_allclose(back, np.minimum(0.5 * grid, 0.5), atol=1e-6)


@pytest.mark.parametrize("to", FORMATS)
def test_it_computes_what_the_widened_kernels_do(to, floats, batch, prompt):
    frozen = quantize_params(floats, COMPUTES[to])
    gradient, logits = gradient_and_logits(frozen, batch, prompt)
    expected, expected_logits = gradient_and_logits(dequantize_params(frozen), batch, prompt)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert np.abs(gradient).max() > 1e-2
    _, unquantised = gradient_and_logits(floats, batch, prompt)
    assert np.abs(logits - unquantised).max() > 1e-4


def test_decoding_takes_it(floats, batch, prompt):
    frozen, injection = quantize_params(floats, NF4_COMPUTE), Injection(encoder_prompt=prompt)
    tokens = batch["encoder_input_tokens"]
    options = DecodingOptions(max_length=3)
    np.testing.assert_array_equal(
        generate(T5(FLOAT), frozen, tokens, injection, options),
        generate(T5(FLOAT), dequantize_params(frozen), tokens, injection, options),
    )


@pytest.mark.slow
def test_rank_classification_takes_it(floats, batch, prompt):
    frozen, injection = quantize_params(floats, NF4_COMPUTE), Injection(encoder_prompt=prompt)
    labels = np.array([[5, 1], [6, 1]], np.int32)
    scores, expected = (
        jax.jit(functools.partial(label_log_likelihoods, T5(FLOAT)))(
            params, batch["encoder_input_tokens"], injection, labels
        )
        for params in (frozen, dequantize_params(frozen))
    )
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_many_prompts_share_one_copy_of_it(floats, batch, prompt):
    frozen = quantize_params(floats, NF4_COMPUTE)
    prompts = jnp.stack([prompt, -prompt])
    of_one = functools.partial(gradient_and_logits.__wrapped__, frozen, batch)
    together, _ = jax.jit(jax.vmap(of_one), compiler_options=QUICKLY)(prompts)
    for one, prompt in zip(together, prompts, strict=True):
        alone, _ = gradient_and_logits(frozen, batch, prompt)
        np.testing.assert_allclose(one, alone, atol=1e-5)


def test_no_widened_kernel_is_kept_for_the_backward_pass():
    """Beside the codes a step needs what it needed, and room for a layer's kernels at most."""
    layers = 6
    config = T5Config(
        name="wide",
        vocab_size=64,
        embed_dim=128,
        num_heads=2,
        head_dim=64,
        mlp_dim=256,
        num_encoder_layers=layers,
        num_decoder_layers=1,
    )
    tokens = jax.ShapeDtypeStruct((2, 4), jnp.int32)
    prompt = jax.ShapeDtypeStruct((1, 2, 128), jnp.float32)

    def memory(compute):
        def loss(prompt, params, tokens):
            injection = Injection(encoder_prompt=prompt)
            return T5(config).apply(params, tokens, injection, method="encode").outputs.sum()

        params = {"params": abstract_params(config, compute)}
        program = jax.jit(jax.grad(loss)).lower(prompt, params, tokens).compile()
        return program.memory_analysis()

    expected = memory(Compute())
    kernels = 4 * layers * (4 * 128 * 128 + 3 * 128 * 256)
    found = memory(Compute(quantization="nf4"))
    freed = expected.argument_size_in_bytes - found.argument_size_in_bytes
    assert freed == pytest.approx(kernels * (1 - 4.25 / 32), abs=64)
    # All layers' would be `kernels`.
    assert found.temp_size_in_bytes - expected.temp_size_in_bytes < kernels / layers


def test_a_model_of_it_has_the_parameters_and_bytes_it_should():
    config, floats = get_config("t5_1_1_xxl"), Compute(param_dtype="bfloat16")
    for to, bits in {"int8": 8.25, "nf4": 4.25}.items():
        compute = dataclasses.replace(floats, quantization=to)
        params = abstract_params(config, compute)
        assert count_parameters(params) == 11_135_332_352
        sizes = {name: leaf.size * leaf.dtype.itemsize for name, leaf in flatten(params).items()}
        kernels = sum(size for name, size in sizes.items() if "/kernel_" in name)
        numbers = 24 * (12 * 4096 * 4096 + 6 * 4096 * 10240)
        assert kernels == numbers * bits / 8
        others = {name for name in sizes if "/kernel_" not in name}
        assert "decoder/logits_dense/kernel" in others
        assert all(name.endswith(("kernel", "scale", "embedding")) for name in others)
    output = dataclasses.replace(compute, quantize_output_layer=True)
    assert "kernel_codes" in abstract_params(config, output)["decoder"]["logits_dense"]


def test_random_weights_are_those_of_the_float_model_quantised(floats):
    frozen = init_params(FLOAT, jax.random.key(0), INT8)
    jax.tree.map(np.testing.assert_array_equal, frozen, quantize_params(floats, INT8))


def test_a_parameter_in_a_file_is_quantised_layer_by_layer_to_the_same(floats):
    name = "encoder/layers/attention/out/kernel"
    whole = flatten(floats)[name]
    found = quantize_stored(name, np.asarray(whole), NF4_COMPUTE)
    expected = flatten(quantize_params(floats, NF4_COMPUTE))
    assert set(found) == {f"{name}_codes", f"{name}_scales"}
    for part, value in found.items():
        np.testing.assert_array_equal(value, expected[part])


def test_layers_are_stacked_in_a_kernel(floats):
    kernel = floats["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    stacked = quantize(kernel, to="nf4", block=8, axis=-2)
    one = jax.tree.map(lambda part: part[1], stacked)
    assert isinstance(one, QuantizedKernel)
    np.testing.assert_array_equal(one.dequantize(), stacked.dequantize()[1])


@pytest.mark.parametrize(
    ("embed_dim", "expected"),
    [(96, "quantization_block is 64; it must divide"), (96, "96: set it to 48."), (15, "15: this")],
)
def test_what_cannot_be_quantized_is_an_error_of_one_line(embed_dim, expected):
    config = dataclasses.replace(FLOAT, embed_dim=embed_dim)
    with pytest.raises(UserError) as error:
        abstract_params(config, Compute(quantization="int8"))
    assert expected in str(error.value) and "\n" not in str(error.value)
