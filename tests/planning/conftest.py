"""A step that compiles in seconds, and what it needs."""

import dataclasses

import pytest

from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.planning.program import Needs, Work, needs_of
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor


@pytest.fixture(scope="session")
def work() -> Work:
    """A step on one device."""
    config = T5Config(
        name="tiny",
        vocab_size=384,
        embed_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=32,
        num_encoder_layers=2,
        num_decoder_layers=3,
    )
    return Work(
        config=config,
        compute=Compute(param_dtype="bfloat16", compute_dtype="bfloat16", remat=True),
        method=SoftPrompt(length=5, embed_dim=16),
        optimizer=adafactor(0.3),
        loss=LossOptions(),
        batch_size=4,
        input_length=20,
        target_length=6,
    )


@pytest.fixture(scope="session")
def needs(work) -> Needs:
    """What it needs."""
    return needs_of(work)


@pytest.fixture(scope="session")
def keeping(work) -> Work:
    """The same without recomputing layers."""
    return dataclasses.replace(work, compute=dataclasses.replace(work.compute, remat=False))


@pytest.fixture(scope="session")
def keeping_needs(keeping) -> Needs:
    """What that needs."""
    return needs_of(keeping)
