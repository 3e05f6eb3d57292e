"""The gin macros that users set, under the names that T5X and the paper's code gave them.

A gin file or `--gin.NAME=VALUE` may define any other macro too, as long as something uses it.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Macro:
    """What one macro holds.

    kind: the types a value may have.
    meaning: one line for `--help` and for messages.
    assigned: whether a population and a sweep set it themselves.
    """

    kind: tuple[type, ...]
    meaning: str
    assigned: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether the value is of a right type; True and False are no numbers."""
        return isinstance(value, self.kind) and (bool in self.kind or not isinstance(value, bool))

    @property
    def expected(self) -> str:
        """The kind in words."""
        return {
            (str,): "a string",
            (str, type(None)): "a string",
            (int,): "an integer",
            (int, type(None)): "an integer or None",
            (bool,): "True or False",
            (int, float): "a number",
            (dict,): "lengths by feature, such as {'inputs': 512, 'targets': 8}",
            (list, tuple): "a list of strings, such as ['True', 'False']",
            (str, list, tuple): "a string or a list of strings",
            (str, list, tuple, type(None)): "a string or a list of strings",
            (list, tuple, dict, type(None)): (
                "a list of members, such as [{'SEED': 0}, {'SEED': 1, 'LEARNING_RATE': 0.1}], or a "
                "grid, such as {'SEED': [0, 1], 'LEARNING_RATE': [0.1, 0.3]}"
            ),
        }[self.kind]


MACROS = {
    "MIXTURE_OR_TASK_NAME": Macro(kind=(str,), meaning="the task to train or evaluate on"),
    "TASK_FEATURE_LENGTHS": Macro(kind=(dict,), meaning="maximum lengths in tokens"),
    "TRAIN_STEPS": Macro(kind=(int,), meaning="training steps (the paper: 30000)"),
    "MODEL_DIR": Macro(kind=(str,), meaning="the run folder", assigned=True),
    "INITIAL_CHECKPOINT_PATH": Macro(
        kind=(str, type(None)),
        meaning="the frozen model: a file, a folder, or the name of a shipped one",
    ),
    "BATCH_SIZE": Macro(kind=(int,), meaning="examples per step (the paper: 32)"),
    "PROMPT_LENGTH": Macro(kind=(int,), meaning="virtual tokens of the prompt (the paper: 100)"),
    "CLASS_LABELS": Macro(kind=(list, tuple), meaning="label words that initialize the prompt"),
    "PROMPT_FILE": Macro(
        kind=(str, type(None)),
        meaning="a prompt in any form (docs/adapters.md), to start from or to use",
    ),
    "LEARNING_RATE": Macro(kind=(int, float), meaning="the learning rate (the paper: 0.3)"),
    "SEED": Macro(kind=(int,), meaning="seed of the initial prompt and the data order"),
    "POPULATION": Macro(
        kind=(list, tuple, dict, type(None)),
        meaning="members to train at once: a list or a grid of settings (docs/population.md)",
        assigned=True,
    ),
    "TUNE": Macro(
        kind=(list, tuple, dict, type(None)),
        meaning="members that `train --tune` tries, in the form of POPULATION",
        assigned=True,
    ),
    "VOCABULARY_PATH": Macro(
        kind=(str, type(None)),
        meaning="the model's vocabulary: a file, a folder, 'byt5', or None: the checkpoint's",
    ),
    "DATA_DIR": Macro(
        kind=(str, type(None)),
        meaning="a folder of the task's official files, or 'tfds:FOLDER'; None: TFDS",
    ),
    "TRAIN_FILE": Macro(
        kind=(str, list, tuple),
        meaning="your own data: a CSV, TSV, jsonl or Parquet file, a list, or 'hf:NAME:SPLIT'",
    ),
    "VALIDATION_FILE": Macro(
        kind=(str, list, tuple, type(None)),
        meaning="the validation file; None: a tenth of TRAIN_FILE is held out",
    ),
    "TEST_FILE": Macro(kind=(str, list, tuple, type(None)), meaning="the file of the test split"),
    "INPUT_TEMPLATE": Macro(
        kind=(str,), meaning="template of the input, such as 'review: {text}', with your columns"
    ),
    "TARGET_TEMPLATE": Macro(kind=(str,), meaning="template of the answer, such as '{label}'"),
    "CORPUS": Macro(
        kind=(str, list, tuple), meaning="text to pre-train on: a file, a list of files, or 'c4'"
    ),
    "OBJECTIVE": Macro(
        kind=(str,), meaning="the pre-training objective: 'span_corruption' or 'lm_adaptation'"
    ),
    "MODEL_PARALLEL": Macro(
        kind=(int,), meaning="devices that share one copy of the frozen model (docs/pods.md)"
    ),
    "DATA_PARALLEL": Macro(
        kind=(int, type(None)), meaning="data-parallel groups of devices; None: use all devices"
    ),
    "COORDINATOR_ADDRESS": Macro(
        kind=(str, type(None)), meaning="host:port of the first process, if there are several"
    ),
    "NUM_PROCESSES": Macro(kind=(int, type(None)), meaning="number of processes"),
    "PROCESS_ID": Macro(kind=(int, type(None)), meaning="index of this process, from 0"),
    "FSDP": Macro(kind=(bool,), meaning="also shard the frozen weights over data-parallel groups"),
}
