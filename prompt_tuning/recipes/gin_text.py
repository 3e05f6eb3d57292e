"""Settings as gin writes them: `config.gin` and `settings.json` of a run folder, without gin.

A setting is a value under the name of a function's parameter, `data.batch_size`. A few have a
macro, which is what a user sets: `BATCH_SIZE = 32` and `data.batch_size = %BATCH_SIZE`.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

MACROS: Mapping[str, str] = {
    "frozen_model.checkpoint": "INITIAL_CHECKPOINT_PATH",
    "vocabulary.checkpoint": "INITIAL_CHECKPOINT_PATH",
    "vocabulary.path": "VOCABULARY_PATH",
    "layout.model_parallel": "MODEL_PARALLEL",
    "layout.data_parallel": "DATA_PARALLEL",
    "layout.fsdp": "FSDP",
    "data.mixture_or_task": "MIXTURE_OR_TASK_NAME",
    "data.feature_lengths": "TASK_FEATURE_LENGTHS",
    "data.data_dir": "DATA_DIR",
    "data.batch_size": "BATCH_SIZE",
    "data.batch_tokens": "BATCH_TOKENS",
    "user_files.train_file": "TRAIN_FILE",
    "user_files.validation_file": "VALIDATION_FILE",
    "user_files.test_file": "TEST_FILE",
    "user_files.input_template": "INPUT_TEMPLATE",
    "user_files.target_template": "TARGET_TEMPLATE",
    "train.folder": "MODEL_DIR",
    "train.train_steps": "TRAIN_STEPS",
    "train.seed": "SEED",
}
"""The macro that fills a parameter, as in `configs/runs/train.gin`."""


class Reference(str):
    """What gin is to call, such as "@user_files()"; it is written without quotes."""


def text_of(value: Any) -> str:
    """Returns a value as gin writes it."""
    return str(value) if isinstance(value, Reference) else repr(value)


def literal(text: str) -> Any:
    """Returns the value of a text; what isn't a literal is a `Reference`."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return Reference(text)


def with_macros(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the texts of settings by name, those of their macros first."""
    macros = {MACROS[name]: text_of(value) for name, value in values.items() if name in MACROS}
    texts = {
        name: f"%{MACROS[name]}" if name in MACROS else text_of(value)
        for name, value in values.items()
    }
    return {**dict(sorted(macros.items())), **dict(sorted(texts.items()))}


def resolved(given: Mapping[str, str]) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns each parameter that is set: its text with macros put in, and which those are.

    Args:
      given: texts by the names of macros and parameters, as gin writes them.
    """

    def resolve(text: str) -> tuple[str, frozenset[str]]:
        names: frozenset[str] = frozenset()

        def put_in(found: re.Match[str]) -> str:
            nonlocal names
            if found[1] not in given:
                return found[0]
            inner, more = resolve(given[found[1]])
            names |= {found[1]} | more
            return inner

        return re.sub(r"%([\w./]+)", put_in, text), names

    return {name: resolve(text) for name, text in given.items() if "." in name}
