"""How scores of neurons are distributed over sharing categories.

All quantities are sums over prompts, so that they can be accumulated prompt by prompt. Shares are
ratios of such sums, never means of ratios. For intervals, the sums are kept by group of prompts:
prompts about one subject are not independent samples, so they are in one group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from neuroglot.sharing.bits import CATEGORIES

ANSWERED = ("incorrect", "correct")
N_GROUPS = 128  # groups of prompts in which scores are summed, for intervals
FEWEST_GROUPS = 10  # with fewer groups there is no interval
TOP_K, TOP_K_WIDTH = 800, 16_384  # the paper's K, and the width of the model that it is used for


def top_k_for(n_neurons: int) -> int:
    """The same share of a layer as the paper's 800 of 16,384 neurons, but at least one neuron."""
    return max(1, round(n_neurons * TOP_K / TOP_K_WIDTH))


def groups_of(clusters: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The group that each item is summed in; intervals are computed over groups.

    The first ``N_GROUPS`` clusters are a group each, and later ones are assigned to these in turn.
    The groups of the first items do not depend on the items that follow.

    Args:
        clusters: cluster of each item (item,); items of one cluster are not independent samples.

    Returns:
        Group numbers from 0 to ``N_GROUPS - 1`` (item,).
    """
    names = clusters.tolist()
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(names))}
    return np.array([number[cluster] % N_GROUPS for cluster in names], dtype=np.int64)


def random_maximum(ranked: Tensor, sizes: Tensor) -> Tensor:
    """Expected greatest score of as many random neurons as each category holds.

    If *n* of *N* neurons are drawn without replacement, the neuron of rank *r* is the greatest with
    probability ``C(N − r, n − 1) / C(N, n)``.

    Args:
        ranked: scores (…, layer, rank), the greatest first.
        sizes: number of neurons of each category (layer, category).

    Returns:
        Scores (…, layer, category), float64; NaN where a category is empty.
    """
    n_ranks = ranked.shape[-1]
    rank = torch.arange(n_ranks, device=ranked.device, dtype=torch.float64)
    drawn = sizes[..., None].to(torch.float64)
    # P(r + 1) = P(r) · (N − n − r) / (N − 1 − r), counted from rank 0.
    steps = (n_ranks - drawn - rank[:-1]).clamp(min=0) / (n_ranks - 1 - rank[:-1])
    first = drawn / n_ranks
    chance = torch.cat([first, first * steps.cumprod(dim=-1)], dim=-1)
    expected = torch.einsum("...lr,lcr->...lc", ranked.to(torch.float64), chance)
    return expected.masked_fill(sizes == 0, torch.nan)


def score_tallies(scores: Tensor, codes: Tensor, top_k: int) -> dict[str, Tensor]:
    """The quantities that are summed, for the prompts of one item.

    Args:
        scores: (score, language, layer, neuron).
        codes: category of each neuron (layer, neuron), as in :data:`CATEGORIES`.
        top_k: how many of the highest scores of a layer count as top; only positive scores do.

    Returns:
        By name, float64: ``size`` (layer, category), ``in_top``, ``positive``, ``signed``,
        ``maximum`` and ``random_maximum`` (score, language, layer, category).
    """
    sizes = torch.stack([(codes == c).sum(dim=-1) for c in range(len(CATEGORIES))], dim=-1)
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    of_rank = codes.expand_as(order).gather(-1, order)
    positive = ranked.clamp(min=0)
    is_top = ranked[..., :top_k] > 0

    def by_category(reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """``reduce`` of each category's mask (score, language, layer, rank), side by side."""
        parts = [reduce(of_rank == category) for category in range(len(CATEGORIES))]
        return torch.stack(parts, dim=-1).to(torch.float64)

    def summed(values: Tensor) -> Tensor:
        return by_category(lambda mask: torch.where(mask, values, 0).sum(-1, dtype=torch.float64))

    maximum = by_category(lambda mask: torch.where(mask, ranked, -torch.inf).amax(dim=-1))
    return {
        "size": sizes.to(torch.float64),
        "in_top": by_category(lambda mask: (mask[..., :top_k] & is_top).sum(dim=-1)),
        "positive": summed(positive),
        "signed": summed(ranked),
        "maximum": maximum.masked_fill(sizes == 0, torch.nan),
        "random_maximum": random_maximum(ranked, sizes),
    }


BY_PROMPT = ("answered", "language")
OF_LAYER = ("score", "layer", "category")
# The depth axis holds every layer, followed by the sum over all layers.
OF_DEPTH = ("score", "depth", "category")
SUM_DIMS: dict[str, tuple[str, ...]] = {
    "n_prompts": (*BY_PROMPT, "group"),
    "size": (*BY_PROMPT, "layer", "category"),
    "n_not_empty": (*BY_PROMPT, "layer", "category"),
    "in_top": (*BY_PROMPT, *OF_LAYER),
    "signed": (*BY_PROMPT, *OF_LAYER),
    "maximum": (*BY_PROMPT, *OF_LAYER),
    "random_maximum": (*BY_PROMPT, *OF_LAYER),
    "positive": (*BY_PROMPT, "group", *OF_DEPTH),
    "score_sum": ("language", "score", "layer", "neuron"),
}


def no_sums(sizes: dict[str, int]) -> xr.Dataset:
    """Sums over no prompts: all zero.

    Args:
        sizes: sizes of the dimensions ``language``, ``score``, ``layer`` and ``neuron``.
    """
    fixed = {"answered": len(ANSWERED), "category": len(CATEGORIES), "group": N_GROUPS}
    size = sizes | fixed | {"depth": sizes["layer"] + 1}
    return xr.Dataset(
        {name: (dims, np.zeros([size[dim] for dim in dims])) for name, dims in SUM_DIMS.items()}
    )


def add_item(
    sums: xr.Dataset,
    scores: Tensor,
    codes: Tensor,
    answered: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    top_k: int,
    group: int,
) -> None:
    """Add the prompts of one item, one per language, to ``sums``.

    Args:
        sums: from :func:`no_sums`; changed in place.
        scores: (score, language, layer, neuron).
        codes: category of each neuron (layer, neuron).
        answered: whether each prompt was answered correctly, and whether it counts (language,).
        top_k: see :func:`score_tallies`.
        group: group of the item; see :func:`groups_of`.
    """
    correct, counted = answered
    languages = np.flatnonzero(counted)
    rows = correct.astype(int)[languages]
    tallies = score_tallies(scores, codes, top_k)
    size = tallies.pop("size").cpu().numpy()
    by_language = {
        name: np.nan_to_num(values.transpose(0, 1).cpu().numpy())[languages]
        for name, values in tallies.items()
    }
    positive = by_language.pop("positive")
    by_depth = np.concatenate([positive, positive.sum(axis=2, keepdims=True)], axis=2)
    sums["n_prompts"].values[rows, languages, group] += 1
    sums["positive"].values[rows, languages, group] += by_depth
    sums["size"].values[rows, languages] += size
    sums["n_not_empty"].values[rows, languages] += size > 0
    for name, values in by_language.items():
        sums[name].values[rows, languages] += values
    sums["score_sum"].values[languages] += scores.transpose(0, 1).cpu().numpy()[languages]


def category_shares(sums: xr.Dataset) -> xr.Dataset:
    """Shares and means of each category, over all prompts and by whether the answer was correct.

    Args:
        sums: sums over prompts (see :func:`add_item`), with coordinates.

    Returns:
        See :func:`neuroglot.attribute`.
    """
    both = sums.drop_vars("score_sum")
    every = both.sum("answered").expand_dims(answered=["all"])
    data = xr.concat([every, both.assign_coords(answered=list(ANSWERED))], dim="answered")
    n, sizes = data["n_prompts"].sum("group"), data["size"]
    n_neurons = sizes.sum("category")
    share, low, high = _ratio_with_interval(data["positive"], data["n_prompts"] > 0)

    def by_layer(values: xr.DataArray) -> xr.DataArray:
        """The layers of the depth axis, without the sum over all of them."""
        return values.isel(depth=slice(-1)).rename(depth="layer").assign_coords(layer=sums["layer"])

    variables = {
        "n_prompts": n.astype(int),
        "fraction": sizes / n_neurons,
        "top_share": data["in_top"] / data["in_top"].sum("category"),
        "positive_share": by_layer(share),
        "positive_share_low": by_layer(low),
        "positive_share_high": by_layer(high),
        "model_fraction": sizes.sum("layer") / n_neurons.sum("layer"),
        "model_positive_share": share.isel(depth=-1),
        "model_positive_share_low": low.isel(depth=-1),
        "model_positive_share_high": high.isel(depth=-1),
        "positive_sum": by_layer(data["positive"].sum("group")) / n,
        "signed_sum": data["signed"] / n,
        "mean": data["signed"] / sizes,
        "layer_mean": data["signed"].sum("category") / n_neurons,
        "maximum": data["maximum"] / data["n_not_empty"],
        "random_maximum": data["random_maximum"] / data["n_not_empty"],
        "mean_score": sums["score_sum"] / both["n_prompts"].sum(("answered", "group")),
    }
    order = ("score", "answered", "language", "layer", "category", "neuron")
    return xr.Dataset(variables).transpose(*order)


def _ratio_with_interval(
    positive: xr.DataArray, asked: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Share of each category in the positive scores, with a 95 % interval over groups of prompts.

    The interval of the ratio of sums ``R = Σp / Σt`` is found by linearisation: with the sums p and
    t of each of G groups, the variance is ``G / (G − 1) · Σ(p − R t)² / (Σt)²``, and the error is
    taken to follow Student's t distribution. With fewer than ten groups the interval would be far
    too narrow, so it is NaN. Source: Cochran, *Sampling Techniques* (1977), §2.11, and §9A.9 for
    clusters.

    Args:
        positive: sums of positive scores (…, group, category).
        asked: whether each group has prompts (…, group).
    """
    totals = positive.sum("category")
    n, total = asked.sum("group"), totals.sum("group")
    enough = n.where(n >= FEWEST_GROUPS)
    t = xr.apply_ufunc(lambda n: stats.t.ppf(0.975, n - 1), enough)
    ratio = positive.sum("group") / total.where(total > 0)
    residual = ((positive - ratio * totals) ** 2).sum("group")
    half_width = t * np.sqrt(residual * enough / (enough - 1)) / total
    return ratio, (ratio - half_width).clip(0, 1), (ratio + half_width).clip(0, 1)
