"""What POPULATION and TUNE hold: the members of a population, each as a few gin bindings.

    [{'SEED': 0}, {'SEED': 1, 'LEARNING_RATE': 0.1}]        a member each
    {'SEED': [0, 1, 2], 'LEARNING_RATE': [0.1, 0.3]}        a grid: each with each, six members

Members share the frozen model, the batch size, the optimizer's kind and so on: what may differ
between them is marked `PerMember` where it is defined, and anything else is refused with its name.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.cli import gin_config, registry
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.grid import combinations, grid_axes, setting_slug

DEFAULT_TUNE = {"LEARNING_RATE": [0.03, 0.1, 0.3, 1.0], "SEED": [0, 1]}
"""What `--tune` tries where TUNE isn't set: rates around the paper's 0.3, and another seed."""

_LONGEST_VALUE = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberSpec:
    """A member as the configuration has it.

    name: readable, and fit for a folder.
    bindings: what it sets, by gin name.
    """

    name: str
    bindings: Mapping[str, Any]

    @property
    def flags(self) -> list[tuple[str, str]]:
        """The bindings as `--gin.NAME=VALUE` would give them."""
        return [(name, repr(value)) for name, value in self.bindings.items()]

    @property
    def text(self) -> str:
        """The bindings for a reader."""
        return ", ".join(f"{name}={value!r}" for name, value in self.bindings.items()) or "as set"


def member_specs(value: Any, macro: str) -> list[MemberSpec]:
    """Returns the members that a macro lists.

    Args:
      value: the macro's value, a list or a grid.
      macro: its name, for messages.

    Raises:
      UserError: it is neither, is empty, names a setting that members can't have, or lists a
        member twice.
    """
    is_grid = isinstance(value, Mapping) and value
    members = list(combinations(grid_axes(value, macro)) if is_grid else value)
    if not members:
        raise UserError(f"{macro} lists no members; expected {MACROS[macro].expected}.")
    specs: list[MemberSpec] = []
    for number, bindings in enumerate(members, start=1):
        if not isinstance(bindings, Mapping) or not all(isinstance(key, str) for key in bindings):
            raise UserError(
                f"Member {number} of {macro} is {bindings!r}; expected settings by name, such as "
                "{'SEED': 1, 'LEARNING_RATE': 0.1}."
            )
        for name in bindings:
            if is_assigned(name):
                raise UserError(
                    f"Member {number} of {macro} sets {name}, which is the whole population's; "
                    "leave it out: each member gets a folder in MODEL_DIR/members."
                )
        same = [spec for spec in specs if spec.bindings == bindings]
        if same:
            raise UserError(f"{macro} lists the member {same[0].text} twice; leave one out.")
        specs.append(MemberSpec(name=_unused(_slug(bindings), specs), bindings=dict(bindings)))
    return specs


def check_member(
    spec: MemberSpec, macro: str, base: Mapping[str, tuple[str, frozenset[str]]]
) -> None:
    """Checks, with a member's configuration loaded, that it can train beside the others.

    Args:
      spec: the member.
      macro: where it is listed, for messages.
      base: `gin_config.resolved()` of the configuration without the member's bindings.

    Raises:
      UserError: it sets what all members share, or what nothing uses.
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
        if text == expected or registry.mark(parameter).per_member:
            continue
        binding = next((name for name in spec.bindings if name in names), parameter)
        raise UserError(
            f"{where} sets {binding}: {parameter} would be {text} and is {expected} for the "
            "population, whose members share it. They may differ in task, seed, learning rate, "
            f"prompt and patience; set {binding} for all of them, or train that one by itself."
        )


def is_assigned(name: str) -> bool:
    """Whether a population and a sweep set a macro or parameter themselves."""
    return (name in MACROS and MACROS[name].assigned) or registry.mark(name).assigned


def _slug(bindings: Mapping[str, Any]) -> str:
    """A name for a folder: `seed_1-learning_rate_0.1`."""
    parts = [setting_slug(name, value, _LONGEST_VALUE) for name, value in bindings.items()]
    return "-".join(parts) or "as_set"


def _unused(slug: str, specs: Sequence[MemberSpec]) -> str:
    taken = {spec.name for spec in specs}
    names = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)
