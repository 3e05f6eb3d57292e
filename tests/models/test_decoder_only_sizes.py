"""The published decoder-only sizes: the parameters that their files have."""

import math

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.models.config import get_config
from prompt_tuning.models.decoder_only_config import DECODER_ONLY
from prompt_tuning.models.parameters import parameter_shapes
from prompt_tuning.models.targets import attention_blocks, select_targets

PUBLISHED = {
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "gemma3_270m": 268_098_176,
    "gemma3_1b": 999_885_952,
    "gemma3_4b": 4_300_079_472 - 416_866_032 - (1152 * 2560 + 1152),
    "gemma3_12b": 12_187_325_040 - 416_866_032 - (1152 * 3840 + 1152),
    "gemma3_27b": 27_432_406_640 - 416_866_032 - (1152 * 5376 + 1152),
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3_1_8b": 8_030_261_248,
    "llama3_1_70b": 70_553_706_496,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "qwen2_5_72b": 72_706_203_648,
    "qwen3_0_6b": 596_049_920,
    "qwen3_1_7b": 1_720_574_976,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "mistral_7b": 7_241_732_096,
    "mistral_7b_v0_3": 7_248_023_552,
}
"""Of a Gemma 3 with images, without its image encoder and the projection of images."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name):
    shapes = parameter_shapes(get_config(name))
    assert sum(map(math.prod, shapes.values())) == PUBLISHED[name]


def test_every_size_is_listed():
    assert set(DECODER_ONLY) == set(PUBLISHED)


def test_blocks_that_the_model_lacks_are_left_out():
    targets = attention_blocks(get_config("llama3_2_1b"))
    (found,) = select_targets(targets, ("attention", "self_attention", "encoder_decoder_attention"))
    assert (found.name, found.outputs) == ("decoder/self_attention", (8, 64))
    for ending in ("encoder_decoder_attention", "selfattention"):
        with pytest.raises(UserError, match=f"no module named '{ending}'"):
            select_targets(targets, (ending,))
