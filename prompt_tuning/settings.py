"""Marks in a setting's type of how it affects a run's identity.

    log_every: Free[int] = 100                  # changes no result
    train_steps: Changeable[int] = 30_000       # a run continues with another value
    learning_rate: PerMember[float] = 0.3       # members of a population may differ in it

A setting without a mark is part of a run's identity: a run doesn't resume in a folder whose run was
started with another value. Marks may be nested; type checkers ignore them. `mark_of` reads a type's
marks, `recipes/signatures.py` those of dataclass fields and function parameters.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """The effect of a setting on a run's identity.

    Attributes:
      free: no result depends on it.
      changeable: a run continues with another value of it.
      per_member: members of a population may have different values.
      assigned: populations and sweeps set it themselves, for each member and each run.
      hashed: it names files whose contents are part of the run's identity.
      fields: it is a dataclass whose fields are settings themselves.
      note: printed when a run continues with another value, after "NAME is A now and was B".
    """

    free: bool = False
    changeable: bool = False
    per_member: bool = False
    assigned: bool = False
    hashed: bool = False
    fields: bool = False
    note: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether another value makes it another run."""
        return not (self.free or self.changeable)


Free = Annotated[T, Mark(free=True)]
Changeable = Annotated[T, Mark(changeable=True)]
PerMember = Annotated[T, Mark(per_member=True)]
Assigned = Annotated[T, Mark(free=True, per_member=True, assigned=True)]
HashedFiles = Annotated[T, Mark(changeable=True, hashed=True)]
Fields = Annotated[T, Mark(fields=True)]


def mark_of(annotation: Any) -> Mark:
    """Returns the combination of all marks of a type."""
    marks = [mark for mark in get_args(annotation)[1:] if isinstance(mark, Mark)]
    return _together(marks) if get_origin(annotation) is Annotated else Mark()


def unmarked(annotation: Any) -> Any:
    """Returns a type without its marks."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _together(marks: list[Mark]) -> Mark:
    values: Mapping[str, Any] = {
        field.name: next((value for mark in marks if (value := getattr(mark, field.name))), None)
        for field in dataclasses.fields(Mark)
    }
    return Mark(**{name: value for name, value in values.items() if value is not None})
