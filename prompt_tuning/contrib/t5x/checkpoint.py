"""Writes a frozen model, and a prompt, as a T5X checkpoint.

    python -m prompt_tuning.contrib.t5x.checkpoint tinyworld_tiny FOLDER --vocabulary=tinyworld

T5X trains, evaluates and infers from the `checkpoint_<step>` in the folder. Published T5X
checkpoints need no conversion. This package reads what T5X writes: the weights by `load_frozen`, a
prompt like any prompt file.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from t5x import checkpoints, partitioning, train_state  # pyright: ignore

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.checkpoints.arrays.stored_arrays import check_parameters
from prompt_tuning.checkpoints.frozen.t5x import variables
from prompt_tuning.contrib.t5x.parameters import (
    Tree,
    frozen_to_t5x,
    initial,
    is_trained,
    trained_from_t5x,
    trained_to_t5x,
    with_axes,
)
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.json_text import shown_names
from prompt_tuning.methods.base import Method
from prompt_tuning.recipes.api import load
from prompt_tuning.recipes.frozen_base import Base


def write_checkpoint(
    folder: FilePath, base: Base, adapter: Adapter | None = None, *, step: int = 0
) -> FilePath:
    """Writes a checkpoint with T5X's own code and returns its folder, `checkpoint_<step>`.

    Args:
      folder: takes the place of T5X's MODEL_DIR.
      base: the frozen model with its weights, of `prompt_tuning.load`.
      adapter: the prompt, or the parameters of any method; None to have T5X initialize them.
      step: the training step.
    """
    config = base.config
    params: dict[str, Any] = flatten_dict(frozen_to_t5x(base.params, config), sep="/")
    if adapter is not None:
        params |= flatten_dict(trained_to_t5x(adapter.trained), sep="/")
    state = train_state.InferenceState.create(with_axes(params, config)).replace_step(step)
    folder = folder.absolute()  # as Orbax expects
    folder.mkdir(parents=True, exist_ok=True)
    manager = checkpoints.OrbaxCheckpointManagerInterface(
        str(folder), state, partitioning.PjitPartitioner(num_partitions=1)
    )
    manager.save(state)
    manager.close()
    return folder / f"checkpoint_{step}"


def read_adapter(checkpoint: FilePath, base: Base, method: Callable[[Base], Method]) -> Adapter:
    """Returns the parameters of any method in a checkpoint that T5X trained.

    Args:
      checkpoint: the `checkpoint_<step>` folder.
      base: the frozen model.
      method: as in `PromptTunedModel`.

    Raises:
      UserError: it isn't a checkpoint, or it has other parameters than the method.
    """
    found = variables(checkpoint)
    made, like = initial(method, base)
    wanted: dict[str, Any] = flatten_dict(trained_to_t5x(like), sep="/")
    check_parameters(
        {name: array for name, array in found.items() if is_trained(name)},
        {name: leaf.shape for name, leaf in wanted.items()},
        source=repr(str(checkpoint)),
    )
    tree = unflatten_dict({name: np.asarray(found[name]) for name in wanted}, sep="/")
    made, trained = made.fold(trained_from_t5x(tree, like))
    return Adapter(method=made, trained=trained, metadata=PromptMetadata(model=base.config.name))


def initial_state(found: Tree, wanted: Tree, *, is_resuming: bool = False) -> Mapping[str, Any]:
    """Returns the part of a checkpoint that a new run starts from: its parameters, at step 0.

    For `utils.RestoreCheckpointConfig.state_transformation_fns`, with `fallback_to_scratch`. T5X
    then initializes the method's parameters, unless the checkpoint has them, and their optimizer's
    state. A resumed run restores all of its own checkpoint.

    Args:
      found: the checkpoint's state.
      wanted: the run's state.
      is_resuming: whether the checkpoint is the run's own.

    Raises:
      UserError: the checkpoint lacks a frozen parameter, which T5X would draw at random.
    """
    if is_resuming:
        return found
    names = flatten_dict(found["target"], sep="/").keys()
    missing = flatten_dict(wanted["target"], sep="/").keys() - names
    missing = sorted(name for name in missing if not is_trained(name))
    if missing:
        raise UserError(
            f"The checkpoint has no {shown_names(missing)}; set INITIAL_CHECKPOINT_PATH to a T5X "
            "checkpoint of the frozen model."
        )
    return {"target": found["target"]}


def main() -> None:
    """Writes the checkpoint that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a frozen model, as for `prompt_tuning.load`")
    parser.add_argument("folder", help="a folder for checkpoint_<step>")
    parser.add_argument("--vocabulary", help="its vocabulary, unless it is in the model's folder")
    parser.add_argument("--prompt", help="a prompt file or a run folder; none to leave it to T5X")
    parser.add_argument("--step", type=int, default=0, help="the training step of the checkpoint")
    given = parser.parse_args()
    base = load(given.model, given.vocabulary, param_dtype=None)
    adapter = None if given.prompt is None else base.load_adapter(given.prompt)
    print(write_checkpoint(as_path(given.folder), base, adapter, step=given.step))


if __name__ == "__main__":
    main()
