"""The members of a population: their settings and folder names."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.sweeps.grid import setting_slug

_LONGEST_VALUE = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberSpec:
    """The specification of a member.

    Attributes:
      name: readable, and valid as a folder name: `seed_1-learning_rate_0.1`.
      bindings: the member's settings by gin name.
    """

    name: str
    bindings: Mapping[str, Any]

    @property
    def flags(self) -> list[tuple[str, str]]:
        """The bindings as (NAME, VALUE) of `--gin.NAME=VALUE`."""
        return [(name, repr(value)) for name, value in self.bindings.items()]

    @property
    def text(self) -> str:
        """The bindings as readable text."""
        return ", ".join(f"{name}={value!r}" for name, value in self.bindings.items()) or "as set"


def named_members(members: Sequence[Mapping[str, Any]]) -> list[MemberSpec]:
    """Returns members with unique names made of their settings."""
    specs: dict[str, MemberSpec] = {}
    for bindings in members:
        parts = [setting_slug(name, value, _LONGEST_VALUE) for name, value in bindings.items()]
        slug = "-".join(parts) or "as_set"
        numbered = itertools.chain([slug], (f"{slug}-{number}" for number in itertools.count(2)))
        name = next(name for name in numbered if name not in specs)
        specs[name] = MemberSpec(name=name, bindings=dict(bindings))
    return list(specs.values())
