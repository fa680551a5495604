"""Which prompts of a task are equal, and which items are therefore no independent samples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Values = np.ndarray[Any, Any]
Indices = np.ndarray[Any, np.dtype[np.int64]]


def first_equal(keys: Sequence[Sequence[Hashable]]) -> Indices:
    """The index of the first item with the same key in the same column (item, column)."""
    first: dict[tuple[int, Hashable], int] = {}
    rows = [
        [first.setdefault((j, key), i) for j, key in enumerate(row)] for i, row in enumerate(keys)
    ]
    return np.array(rows, np.int64)


def clusters_of(names: Sequence[str] | Values, *same: Values | None) -> Values:
    """The cluster of each item: items of one cluster are no independent samples.

    Items with a name or a prompt in common are in one cluster, as are items that a chain of such
    pairs connects.

    Args:
        names: the name of what each item is about (item,), such as its subject.
        same: which prompts are equal (item, language), for one model or several; ``None`` where
            it is not known.

    Returns:
        The name of each item's cluster (item,): the first of its items' names in sorted order.
    """
    given = np.asarray(names).astype(str)
    n = len(given)
    in_common = [
        given,
        *(column for prompts in same if prompts is not None for column in prompts.T),
    ]
    # A graph whose nodes are the items, the names and the prompts.
    nodes, n_nodes = [], n
    for labels in in_common:
        distinct, place = np.unique(labels, return_inverse=True)
        nodes.append(n_nodes + place)
        n_nodes += len(distinct)
    items, others = np.tile(np.arange(n), len(nodes)), np.concatenate(nodes)
    edges = coo_array((np.ones(len(items), np.int8), (items, others)), shape=(n_nodes, n_nodes))
    component = connected_components(edges, directed=False)[1][:n]
    order = np.argsort(given, kind="stable")
    _, first, of_item = np.unique(component[order], return_index=True, return_inverse=True)
    names_of = np.empty_like(given)
    names_of[order] = given[order][first[of_item]]
    return names_of
