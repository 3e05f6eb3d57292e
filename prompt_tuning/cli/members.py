"""Reads the members of a population from POPULATION or TUNE, each as gin bindings.

    [{'SEED': 0}, {'SEED': 1, 'LEARNING_RATE': 0.1}]        one member per entry
    {'SEED': [0, 1, 2], 'LEARNING_RATE': [0.1, 0.3]}        a grid of all combinations: six members

Members share the frozen model, the batch size, the type of optimizer and so on. Settings that may
differ are marked `PerMember` in their definition; all others are rejected.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from prompt_tuning.cli import gin_config
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.signatures import mark
from prompt_tuning.sweeps.grid import combinations, grid_axes
from prompt_tuning.sweeps.members import MemberSpec, named_members

DEFAULT_TUNE = {"LEARNING_RATE": [0.03, 0.1, 0.3, 1.0], "SEED": [0, 1]}
"""Default of TUNE for `--tune`: learning rates around the paper's 0.3, with two seeds."""


def member_specs(value: Any, macro: str) -> list[MemberSpec]:
    """Returns the members listed by a macro.

    Args:
      value: the macro's value, a list or a grid.
      macro: its name, for messages.

    Raises:
      UserError: the value is invalid or empty, names a setting that members can't have, or lists
        a member twice.
    """
    is_grid = isinstance(value, Mapping) and value
    members = list(combinations(grid_axes(value, macro)) if is_grid else value)
    if not members:
        raise UserError(f"{macro} lists no members; expected {MACROS[macro].expected}.")
    for number, bindings in enumerate(members, start=1):
        if not isinstance(bindings, Mapping) or not all(isinstance(key, str) for key in bindings):
            raise UserError(
                f"Member {number} of {macro} is {bindings!r}; expected settings by name, such as "
                "{'SEED': 1, 'LEARNING_RATE': 0.1}."
            )
        for name in bindings:
            if is_assigned(name):
                raise UserError(
                    f"Member {number} of {macro} sets {name}, which applies to the whole "
                    "population; remove it: each member gets a folder in MODEL_DIR/members."
                )
    specs = named_members(members)
    for spec, earlier in itertools.combinations(specs, 2):
        if spec.bindings == earlier.bindings:
            raise UserError(f"{macro} lists the member {spec.text} twice; leave one out.")
    return specs


def check_member(
    spec: MemberSpec, macro: str, base: Mapping[str, tuple[str, frozenset[str]]]
) -> None:
    """Checks that a member, whose configuration is loaded, can train with the others.

    Args:
      spec: the member.
      macro: where it is listed, for messages.
      base: `gin_config.resolved()` of the configuration without the member's bindings.

    Raises:
      UserError: it sets a setting that is shared or unused.
    """
    found = gin_config.resolved()
    where = f"The member {spec.text} of {macro}"
    used = set().union(*(names for _, names in found.values()), found)
    for name in spec.bindings:
        if name not in used:
            raise UserError(f"{where} sets {name}, which nothing in this configuration uses.")
    for parameter in sorted(found.keys() | base.keys()):
        text, names = found.get(parameter, ("not set", frozenset()))
        expected = base.get(parameter, ("not set", frozenset()))[0]
        if text == expected or mark(parameter).per_member:
            continue
        binding = next((name for name in spec.bindings if name in names), parameter)
        raise UserError(
            f"{where} sets {binding}: {parameter} would be {text}, but is {expected} for all "
            "members. Members may differ in task, seed, learning rate, prompt and patience; set "
            f"{binding} for all of them, or train this one separately."
        )


def is_assigned(name: str) -> bool:
    """Returns whether populations and sweeps set a macro or parameter."""
    return (name in MACROS and MACROS[name].assigned) or mark(name).assigned
