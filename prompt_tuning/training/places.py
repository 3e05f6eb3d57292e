"""How the members of a population share the compiled program (`population.py`).

A program is compiled for a number of members and a length of their inputs. Few numbers keep
compilation rare: those of all places, half of them, a quarter, and so on. A group of members that
is smaller than its program leaves the rest idle.
"""

from collections.abc import Sequence

_POSITIONS_A_CALL = 64
"""What starting one more program costs, in positions of a row: a guess, on the side of few."""


def program_sizes(places: int) -> tuple[int, ...]:
    """Returns how many members programs hold: `places` and its halves down to 1, ascending."""
    sizes = [places]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return tuple(reversed(sizes))


def program_size(members: int, sizes: Sequence[int]) -> int:
    """Returns the smallest size that holds so many members."""
    return next(size for size in sizes if size >= members)


def groups_by_length(
    lengths: Sequence[int], sizes: Sequence[int], other_positions: int
) -> list[list[int]]:
    """Returns the members of each program that together compute the fewest positions.

    Members whose batches are of very different length had better not be padded to the longest.
    Found exactly, by dynamic programming over the members in the order of their lengths; a
    function of its arguments alone, so that a resumed population groups as it did.

    Args:
      lengths: of each member's inputs at this step, in tokens.
      sizes: how many members programs hold, ascending.
      other_positions: what each row computes besides, such as its prompt.
    """
    order = sorted(range(len(lengths)), key=lambda member: (-lengths[member], member))
    # best[n]: the cheapest way to place the n members with the longest inputs, and where the
    # last of its groups begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        best.append(
            min(
                (
                    best[start][0]
                    + _POSITIONS_A_CALL
                    + program_size(end - start, sizes) * (other_positions + lengths[order[start]]),
                    start,
                )
                for start in range(end)
                if end - start <= sizes[-1]
            )
        )
    groups = []
    end = len(order)
    while end:
        start = best[end][1]
        groups.append(sorted(order[start:end]))
        end = start
    return groups[::-1]
