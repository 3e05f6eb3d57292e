"""Parameter-efficient prompt tuning of frozen T5 models in JAX (Lester et al., 2021)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_tuning.predictor import Answer, Example, Predictor

__all__ = ["Answer", "Example", "Predictor"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # JAX is loaded by the first use, not by `import prompt_tuning`: the command line is fast.
    if name in __all__:
        from prompt_tuning import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
