"""The members of a population: what each sets, and what its folder is called."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.sweeps.grid import setting_slug

_LONGEST_VALUE = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberSpec:
    """A member as the configuration has it.

    Attributes:
      name: readable, and fit for a folder: `seed_1-learning_rate_0.1`.
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


def named_members(members: Sequence[Mapping[str, Any]]) -> list[MemberSpec]:
    """Returns members with names, all different, made of what they set."""
    specs: dict[str, MemberSpec] = {}
    for bindings in members:
        parts = [setting_slug(name, value, _LONGEST_VALUE) for name, value in bindings.items()]
        slug = "-".join(parts) or "as_set"
        numbered = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
        name = next(name for name in numbered if name not in specs)
        specs[name] = MemberSpec(name=name, bindings=dict(bindings))
    return list(specs.values())
