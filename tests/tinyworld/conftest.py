"""The pre-training corpus is written by scripts of an experiment, which tests import."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "tinyworld"))
