"""Which prompts of a task are equal, and which items are no independent samples for it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Values = np.ndarray[Any, Any]
Indices = np.ndarray[Any, np.dtype[np.int64]]


def first_equal(keys: Sequence[Sequence[Hashable]]) -> Indices:
    """Index of the first item whose key in the same column is equal (item, column)."""
    first: dict[tuple[int, Hashable], int] = {}
    found = [
        [first.setdefault((j, key), i) for j, key in enumerate(row)] for i, row in enumerate(keys)
    ]
    return np.array(found, np.int64)


def clusters_of(names: Sequence[str] | Values, *same: Values | None) -> Values:
    """Which items are no independent samples, because they have a name or a prompt in common.

    Two items are in one cluster if a chain of others, each with a name or a prompt in common with
    the next, leads from one to the other.

    Args:
        names: of what each item is about (item,), such as its subject.
        same: which prompts are equal (item, language), by one model or several; ``None`` where it
            is not known.

    Returns:
        The name of each item's cluster (item,): the first of its items' names in sorted order.
    """
    given = np.asarray(names).astype(str)
    n = len(given)
    in_common = [given, *(column for known in same if known is not None for column in known.T)]
    # Each name and each prompt is a node beside those of the items.
    nodes, n_nodes = [], n
    for labels in in_common:
        found, place = np.unique(labels, return_inverse=True)
        nodes.append(n_nodes + place)
        n_nodes += len(found)
    one, other = np.tile(np.arange(n), len(nodes)), np.concatenate(nodes)
    joined = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(n_nodes, n_nodes))
    component = connected_components(joined, directed=False)[1][:n]
    order = np.argsort(given, kind="stable")
    _, first, of_item = np.unique(component[order], return_index=True, return_inverse=True)
    names_of = np.empty_like(given)
    names_of[order] = given[order][first[of_item]]
    return names_of
