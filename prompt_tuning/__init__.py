"""Parameter-efficient prompt tuning of frozen T5 models in JAX (Lester et al., 2021)."""

__version__ = "0.1.0"
