"""The gin macros that users set, with the names used by T5X and the paper's code.

A gin file or `--gin.NAME=VALUE` may define other macros, as long as they are used.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """Accepted types of a value, and their description in messages."""

    types: tuple[type, ...]
    text: str


_NONE = type(None)
_STRING, _STRING_OR_NONE = Kind((str,), "a string"), Kind((str, _NONE), "a string")
_INTEGER, _INTEGER_OR_NONE = Kind((int,), "an integer"), Kind((int, _NONE), "an integer or None")
_NUMBER, _BOOL = Kind((int, float), "a number"), Kind((bool,), "True or False")
_LENGTHS = Kind((dict,), "lengths by feature, such as {'inputs': 512, 'targets': 8}")
_STRINGS = Kind((list, tuple), "a list of strings, such as ['True', 'False']")
_FILES = Kind((str, list, tuple), "a string or a list of strings")
_FILES_OR_NONE = Kind((str, list, tuple, _NONE), "a string or a list of strings")
_MEMBERS = Kind(
    (list, tuple, dict, _NONE),
    "a list of members, such as [{'SEED': 0}, {'SEED': 1, 'LEARNING_RATE': 0.1}], or a grid, such "
    "as {'SEED': [0, 1], 'LEARNING_RATE': [0.1, 0.3]}",
)


@dataclass(frozen=True)
class Macro:
    """Description of one macro.

    Attributes:
      kind: accepted values.
      meaning: one line for `--help` and messages.
      assigned: whether populations and sweeps set it.
    """

    kind: Kind
    meaning: str
    assigned: bool = False

    def accepts(self, value: Any) -> bool:
        """Returns whether the value has one of the types; bool isn't accepted as int."""
        types = self.kind.types
        return isinstance(value, types) and (bool in types or not isinstance(value, bool))

    @property
    def expected(self) -> str:
        """The accepted types in words."""
        return self.kind.text


MACROS = {
    "MIXTURE_OR_TASK_NAME": Macro(_STRING, "the task to train or evaluate on"),
    "TASK_FEATURE_LENGTHS": Macro(_LENGTHS, "maximum lengths in tokens"),
    "TRAIN_STEPS": Macro(_INTEGER, "training steps (the paper: 30000)"),
    "MODEL_DIR": Macro(_STRING, "the run folder", assigned=True),
    "INITIAL_CHECKPOINT_PATH": Macro(
        _STRING_OR_NONE, "the frozen model: a file, a folder, or the name of a shipped one"
    ),
    "BATCH_SIZE": Macro(_INTEGER, "examples per step (the paper: 32)"),
    "PROMPT_LENGTH": Macro(_INTEGER, "virtual tokens of the prompt (the paper: 100)"),
    "CLASS_LABELS": Macro(_STRINGS, "label words that initialize the prompt"),
    "PROMPT_FILE": Macro(
        _STRING_OR_NONE, "a prompt in any form (docs/adapters.md), to start from or to use"
    ),
    "LEARNING_RATE": Macro(_NUMBER, "the learning rate (the paper: 0.3)"),
    "SEED": Macro(_INTEGER, "seed of the initial prompt and the data order"),
    "POPULATION": Macro(
        _MEMBERS,
        "members to train at once: a list or a grid of settings (docs/population.md)",
        assigned=True,
    ),
    "TUNE": Macro(
        _MEMBERS, "members that `train --tune` tries, in the form of POPULATION", assigned=True
    ),
    "VOCABULARY_PATH": Macro(
        _STRING_OR_NONE,
        "the model's vocabulary: a file, a folder, 'byt5', or None: the checkpoint's",
    ),
    "DATA_DIR": Macro(
        _STRING_OR_NONE, "a folder of official files, 'tfds:FOLDER' or 'tinyworld:ROWS'; None: TFDS"
    ),
    "TRAIN_FILE": Macro(
        _FILES, "your own data: a CSV, TSV, jsonl or Parquet file, a list, or 'hf:NAME:SPLIT'"
    ),
    "VALIDATION_FILE": Macro(
        _FILES_OR_NONE, "the validation file; None: a tenth of TRAIN_FILE is held out"
    ),
    "TEST_FILE": Macro(_FILES_OR_NONE, "the file of the test split"),
    "INPUT_TEMPLATE": Macro(
        _STRING, "template of the input, such as 'review: {text}', with your columns"
    ),
    "TARGET_TEMPLATE": Macro(_STRING, "template of the answer, such as '{label}'"),
    "CORPUS": Macro(_FILES, "text to pre-train on: a file, a list of files, or 'c4'"),
    "OBJECTIVE": Macro(_STRING, "the pre-training objective: 'span_corruption' or 'lm_adaptation'"),
    "MODEL_PARALLEL": Macro(
        _INTEGER, "devices that share one copy of the frozen model (docs/pods.md)"
    ),
    "DATA_PARALLEL": Macro(
        _INTEGER_OR_NONE, "data-parallel groups of devices; None: use all devices"
    ),
    "COORDINATOR_ADDRESS": Macro(
        _STRING_OR_NONE, "host:port of the first process, if there are several"
    ),
    "NUM_PROCESSES": Macro(_INTEGER_OR_NONE, "number of processes"),
    "PROCESS_ID": Macro(_INTEGER_OR_NONE, "index of this process, from 0"),
    "FSDP": Macro(_BOOL, "also shard the frozen weights over data-parallel groups"),
}
