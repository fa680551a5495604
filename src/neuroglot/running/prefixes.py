"""Groups of prompts that begin with the same tokens, which then run only once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

# A group runs in two steps, which must save at least this share of its tokens.
LEAST_SAVED = 0.2


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts with a common beginning.

    Attributes:
        rows: the indices of the prompts.
        n_shared: the number of first tokens that they share; 0 for a prompt that runs by itself.
    """

    rows: list[int]
    n_shared: int


def shared_prefixes(sequences: Sequence[Sequence[int]]) -> list[Group]:
    """Put prompts into groups so that as few tokens as possible need to run.

    In sorted order, prompts that share a beginning are neighbours. Those that share a long
    beginning form a group, unless a larger group that shares less saves more tokens. At least one
    token of each prompt stays outside the shared beginning.

    Args:
        sequences: the token ids of each prompt.

    Returns:
        The groups. Each prompt is in one of them, by itself if it shares nothing.
    """
    order = sorted(range(len(sequences)), key=lambda row: list(sequences[row]))
    shared = [
        _n_common(sequences[one], sequences[other]) for one, other in itertools.pairwise(order)
    ]
    lengths = [len(sequences[row]) for row in order]
    return [Group(order[first : last + 1], n) for first, last, n in _stretches(shared, lengths)]


def _n_common(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of first tokens that two prompts share, without the last token of either."""
    most = min(len(one), len(other)) - 1
    return next((i for i in range(most) if one[i] != other[i]), most)


def _stretches(shared: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """The first and last place of each group of sorted prompts, and how many tokens it shares.

    Neighbours that share the most tokens are joined first. All prompts of the stretches that are
    joined then share at least as many tokens as the two neighbours do.

    Args:
        shared: the number of first tokens that each prompt shares with the next one.
        lengths: the number of tokens of each prompt.
    """
    n_prompts = len(lengths)
    n_tokens = [0, *itertools.accumulate(lengths)]
    first_of, last_of = list(range(n_prompts)), list(range(n_prompts))
    groups = [[(place, place, 0)] for place in range(n_prompts)]  # by a stretch's first place
    for place in sorted(range(len(shared)), key=lambda place: -shared[place]):
        first, last, n = first_of[place], last_of[place + 1], shared[place]
        parts = groups[first] + groups[place + 1]
        least = LEAST_SAVED * (n_tokens[last + 1] - n_tokens[first])
        saves = (last - first) * n
        is_worth_it = saves >= least and saves > sum((b - a) * m for a, b, m in parts)
        groups[first] = [(first, last, n)] if is_worth_it else parts
        last_of[first], first_of[last] = last, first
    # In the end all prompts are in one stretch.
    return groups[0] if groups else []
