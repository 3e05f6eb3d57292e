"""The sizes, as data."""

import json
import re

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import MODELS, T5Config, config_from_json, get_config
from prompt_tuning.models.decoder_only_config import DECODER_ONLY
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import count_parameters

# v1.1 are the paper's; the others guard our own tables against change.
PARAMETERS = {
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "umt5_small": 306_601_984,
    "umt5_base": 592_043_520,
    "umt5_xl": 3_768_356_864,
    "umt5_xxl": 12_972_531_712,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
    "ul2_20b": 19_591_209_984,
    "madlad400_3b": 2_940_374_016,
    "madlad400_7b": 8_296_829_952,
    "madlad400_10b": 10_712_586_240,
    # S and B as KerasHub counts them.
    "t5gemma_s_s": 312_517_632,
    "t5gemma_b_b": 591_490_560,
    "t5gemma_l_l": 1_241_761_792,
    "t5gemma_xl_xl": 3_766_980_608,
    "t5gemma_2b_2b": 5_596_853_760,
    "t5gemma_9b_9b": 20_333_401_088,
    "t5gemma_9b_2b": 12_292_375_296,
    # Two of Gemma 3's stacks and one table, without images: 370M, 1.7B and 7B in the paper.
    "t5gemma2_270m_270m": 368_424_192,
    "t5gemma2_1b_1b": 1_697_782_016,
    "t5gemma2_4b_4b": 7_089_110_016,
}


def test_every_model_is_counted():
    assert set(PARAMETERS) == set(MODELS) - set(DECODER_ONLY)  # test_decoder_only_sizes.py


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    assert count_parameters(abstract_params(get_config(name))) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "prompt", "share"),
    [
        ("t5_1_1_small", 51_200, 0.0665),
        ("t5_1_1_base", 76_800, 0.0310),
        ("t5_1_1_large", 102_400, 0.0131),
        ("t5_1_1_xl", 204_800, 0.0072),
        ("t5_1_1_xxl", 409_600, 0.0037),
    ],
)
def test_share_of_a_prompt_of_100_tokens(name, prompt, share):
    assert 100 * get_config(name).embed_dim == prompt
    assert round(100 * prompt / PARAMETERS[name], 4) == share


def test_param_dtype_is_that_of_every_parameter():
    params = abstract_params(get_config("t5_1_1_small"), Compute(param_dtype="bfloat16"))
    assert params["decoder"]["layers"]["mlp"]["wo"]["kernel"].dtype == "bfloat16"
    assert params["encoder"]["relpos_bias"]["rel_embedding"].dtype == "bfloat16"


def test_unknown_name_is_told_with_the_close_ones():
    with pytest.raises(UserError, match="Did you mean 't5_1_1_large'"):
        get_config("t5_1_1_lage")


@pytest.mark.parametrize("name", ["mt5_base", "umt5_small", "t5gemma_9b_2b"])
def test_json_round_trip(name):
    config = get_config(name)
    assert config_from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ({"num_heads": "4"}, "num_heads is '4'; expected an integer from 1 to"),
        ({"num_kv_heads": 3}, "8 heads of 64 for 3 of keys and values; expected a multiple"),
        ({"windows": [3.5]}, "windows are"),
        ({"windows": None}, "windows are "),
        ({"depth": 3}, "Not a model.s config.*depth"),
        ({"rope_theta": float("nan")}, "rope_theta is "),
        ({"activation_name": "tanh"}, "activation_name is 'tanh'"),
        ({"embed_dim": 16}, "embed_dim is 512; expected the encoder's, 16"),
    ],
)
def test_json_of_an_impossible_t5gemma_is_told(stack, message):
    fields = get_config("t5gemma_s_s").to_json()
    with pytest.raises(UserError, match=message):
        config_from_json({**fields, "encoder": {**fields["encoder"], **stack}})


def test_json_of_another_kind_is_told():
    fields = get_config("t5_small").to_json()
    del fields["mlp_dim"]
    with pytest.raises(
        UserError, match=r"unknown fields \['depth'\], missing fields \['mlp_dim'\]"
    ):
        T5Config.from_json({**fields, "depth": 3})


@pytest.mark.parametrize("field", ["param_dtype", "compute_dtype", "matmul_dtype"])
def test_unknown_dtype_is_told(field):
    with pytest.raises(UserError, match=f"{field} is 'float16'; expected one of"):
        Compute(**{field: "float16"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"unroll": -1}, "unroll is -1; expected 0 or more"),
        ({"dropout_rate": 2.0}, "dropout_rate is 2.0; expected from 0"),
        ({"quantization": "nf5"}, "Did you mean 'nf4'?"),
        ({"quantization": "INT8"}, "Did you mean 'int8'?"),
        ({"quantization_block": 1}, "is 1; expected an even number"),
    ],
)
def test_what_cannot_be_computed_is_an_error_of_one_line(fields, expected):
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        Compute(**fields)
    assert "\n" not in str(error.value)
