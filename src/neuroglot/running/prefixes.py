"""Prompts that begin with the same tokens, which then need to run only once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

# A group runs in two steps, which is worth it for at least this share of its tokens.
LEAST_SAVED = 0.2


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts with a common beginning.

    Attributes:
        rows: of the prompts.
        n_shared: how many first tokens they share; 0 for prompts that run by themselves.
    """

    rows: list[int]
    n_shared: int


def shared_prefixes(sequences: Sequence[Sequence[int]]) -> list[Group]:
    """Put prompts into groups so that as few tokens as possible need to run.

    Sorted, prompts that share a beginning are neighbours. Those that share a long one are a group,
    unless they save more as part of a larger group that shares less. At least one token of each
    prompt stays outside the shared beginning.

    Args:
        sequences: token ids of each prompt.

    Returns:
        Every prompt in one group; those with nothing to share in groups of one.
    """
    order = sorted(range(len(sequences)), key=lambda row: list(sequences[row]))
    shared = [
        _n_common(sequences[one], sequences[other]) for one, other in itertools.pairwise(order)
    ]
    lengths = [len(sequences[row]) for row in order]
    return [Group(order[first : last + 1], n) for first, last, n in _stretches(shared, lengths)]


def _n_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two prompts share, short of the last of either."""
    most = min(len(one), len(other)) - 1
    return next((i for i in range(most) if one[i] != other[i]), most)


def _stretches(shared: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """First and last place of each group of sorted prompts, and how many tokens it shares.

    Neighbours are joined in the order of what they share, most first. What was joined before then
    shares at least as much, so that a joined stretch shares what the joined neighbours do.
    """
    n_prompts = len(lengths)
    n_tokens = [0, *itertools.accumulate(lengths)]
    first_of, last_of = list(range(n_prompts)), list(range(n_prompts))
    groups = [[(place, place, 0)] for place in range(n_prompts)]  # by the first place of a stretch
    for place in sorted(range(len(shared)), key=lambda place: -shared[place]):
        first, last, n = first_of[place], last_of[place + 1], shared[place]
        parts = groups[first] + groups[place + 1]
        least = LEAST_SAVED * (n_tokens[last + 1] - n_tokens[first])
        saves = (last - first) * n
        worth = saves >= least and saves > sum((b - a) * m for a, b, m in parts)
        groups[first] = [(first, last, n)] if worth else parts
        last_of[first], first_of[last] = last, first
    # In the end all are one stretch; without any prompt there is none.
    return groups[0] if groups else []
