"""How scores of neurons are spread over sharing categories.

Everything here is a sum over prompts, so that it can be added up prompt by prompt. Shares are
ratios of such sums, never means of ratios. What an interval needs is summed in groups of prompts:
those of one subject are no independent samples, and are in one group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from neuroglot.sharing.bits import CATEGORIES

ANSWERED = ("incorrect", "correct")
N_GROUPS = 128  # in which scores are added up for intervals
FEWEST_GROUPS = 10  # of an interval
TOP_K, TOP_K_WIDTH = 800, 16_384  # the paper's, and the width it is meant for


def top_k_for(n_neurons: int) -> int:
    """The paper's K = 800 of 16,384 neurons, as the same share of another width; at least 1."""
    return max(1, round(n_neurons * TOP_K / TOP_K_WIDTH))


def groups_of(clusters: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which of the groups, over which intervals are, each item belongs to.

    Each cluster is a group of its own as long as there are groups; then they are shared in turn.
    Groups of the first items are the same whatever items follow.

    Args:
        clusters: names of items that are no independent samples (item,).

    Returns:
        Numbers from 0, smaller than ``N_GROUPS`` (item,).
    """
    _, first, place = np.unique(clusters, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))  # of clusters, by their first item
    found: np.ndarray[Any, np.dtype[np.int64]] = order[place] % N_GROUPS
    return found


def random_maximum(ranked: Tensor, sizes: Tensor) -> Tensor:
    """Expected greatest score of as many random neurons as each category has.

    With *n* of *N* neurons drawn without replacement, the one of rank *r* is the greatest with
    probability ``C(N − r, n − 1) / C(N, n)``.

    Args:
        ranked: scores (…, layer, rank), the greatest first.
        sizes: neurons of each category (layer, category).

    Returns:
        (…, layer, category), float64; NaN where a category is empty.
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
    """What is added up of the scores of some prompts of one item.

    Args:
        scores: (score, language, layer, neuron).
        codes: category of each neuron (layer, neuron), as in :data:`CATEGORIES`.
        top_k: how many of the highest scores of a layer count as top; only positive ones do.

    Returns:
        By name, float64: ``size`` (layer, category), ``in_top``, ``positive``, ``signed``,
        ``maximum`` and ``random_maximum`` (score, language, layer, category).
    """
    sizes = torch.stack([(codes == c).sum(dim=-1) for c in range(len(CATEGORIES))], dim=-1)
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    of_rank = codes.expand_as(order).gather(-1, order)
    positive = ranked.clamp(min=0)
    found: dict[str, list[Tensor]] = {
        key: [] for key in ("in_top", "positive", "signed", "maximum")
    }
    for category in range(len(CATEGORIES)):
        here = of_rank == category
        top = here[..., :top_k] & (ranked[..., :top_k] > 0)
        found["in_top"].append(top.sum(dim=-1))
        found["positive"].append(torch.where(here, positive, 0).sum(dim=-1, dtype=torch.float64))
        found["signed"].append(torch.where(here, ranked, 0).sum(dim=-1, dtype=torch.float64))
        found["maximum"].append(torch.where(here, ranked, -torch.inf).amax(dim=-1))
    stacked = {key: torch.stack(parts, dim=-1).to(torch.float64) for key, parts in found.items()}
    stacked["maximum"] = stacked["maximum"].masked_fill(sizes == 0, torch.nan)
    return stacked | {
        "size": sizes.to(torch.float64),
        "random_maximum": random_maximum(ranked, sizes),
    }


BY_PROMPT = ("answered", "language")
OF_LAYER = ("score", "layer", "category")
# Beside the layers, one more place holds the sum over all of them.
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
    """Sums over no prompts.

    Args:
        sizes: of the dimensions ``language``, ``score``, ``layer`` and ``neuron``.
    """
    known = sizes | {"answered": len(ANSWERED), "category": len(CATEGORIES)}
    known |= {"depth": known["layer"] + 1, "group": N_GROUPS}
    return xr.Dataset(
        {name: (dims, np.zeros([known[dim] for dim in dims])) for name, dims in SUM_DIMS.items()}
    )


def add_item(
    sums: xr.Dataset,
    scores: Tensor,
    codes: Tensor,
    answered: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
    top_k: int,
    group: int,
) -> None:
    """Add the prompts of one item, one of each language, to ``sums``.

    Args:
        sums: from :func:`no_sums`; changed.
        scores: (score, language, layer, neuron).
        codes: category of each neuron (layer, neuron).
        answered: whether each prompt was answered correctly, and whether it counts (language,).
        top_k: see :func:`score_tallies`.
        group: of the item, see :func:`groups_of`.
    """
    correct, counted = answered
    found = {key: value.cpu().numpy() for key, value in score_tallies(scores, codes, top_k).items()}
    size = found.pop("size")
    by_language = {key: np.nan_to_num(np.moveaxis(x, 1, 0)) for key, x in found.items()}
    positive = by_language.pop("positive")
    in_groups = {
        "n_prompts": np.ones(len(correct)),
        "positive": np.concatenate([positive, positive.sum(axis=2, keepdims=True)], axis=2),
    }
    by_language |= {
        "size": np.broadcast_to(size, (len(correct), *size.shape)),
        "n_not_empty": np.broadcast_to(size > 0, (len(correct), *size.shape)),
    }
    languages = np.flatnonzero(counted)
    rows = correct.astype(int)[languages]
    for name, values in by_language.items():
        sums[name].values[rows, languages] += values[languages]
    for name, values in in_groups.items():
        sums[name].values[rows, languages, group] += values[languages]
    sums["score_sum"].values[languages] += scores.transpose(0, 1).cpu().numpy()[languages]


def category_shares(sums: xr.Dataset) -> xr.Dataset:
    """What the sums say of each category, for all prompts and for those answered either way.

    Args:
        sums: over prompts, see :func:`add_item`, with coordinates.

    Returns:
        See :func:`neuroglot.attribute`.
    """
    both = sums.drop_vars("score_sum")
    every = both.sum("answered").expand_dims(answered=["all"])
    data = xr.concat([every, both.assign_coords(answered=list(ANSWERED))], dim="answered")
    layers = slice(sums.sizes["layer"])
    n, sizes = data["n_prompts"].sum("group"), data["size"]
    n_neurons = sizes.sum("category")
    share, low, high = _ratio_with_interval(data["positive"], data["n_prompts"] > 0)
    positive = _of_layers(data["positive"].sum("group"), layers, sums)
    found = {
        "n_prompts": n.astype(int),
        "fraction": sizes / n_neurons,
        "top_share": data["in_top"] / data["in_top"].sum("category"),
        "positive_share": _of_layers(share, layers, sums),
        "positive_share_low": _of_layers(low, layers, sums),
        "positive_share_high": _of_layers(high, layers, sums),
        "model_fraction": sizes.sum("layer") / n_neurons.sum("layer"),
        "model_positive_share": share.isel(depth=-1),
        "model_positive_share_low": low.isel(depth=-1),
        "model_positive_share_high": high.isel(depth=-1),
        "positive_sum": positive / n,
        "signed_sum": data["signed"] / n,
        "mean": data["signed"] / sizes,
        "layer_mean": data["signed"].sum("category") / n_neurons,
        "maximum": data["maximum"] / data["n_not_empty"],
        "random_maximum": data["random_maximum"] / data["n_not_empty"],
        "mean_score": sums["score_sum"] / both["n_prompts"].sum(("answered", "group")),
    }
    order = ("score", "answered", "language", "layer", "category", "neuron")
    return xr.Dataset(found).transpose(*order)


def _of_layers(values: xr.DataArray, layers: slice, sums: xr.Dataset) -> xr.DataArray:
    """The layers of a depth axis."""
    found = values.isel(depth=layers).rename(depth="layer")
    return found.assign_coords(layer=sums["layer"]) if "layer" in sums.coords else found


def _ratio_with_interval(
    positive: xr.DataArray, asked: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Share of each category in the positive scores, with a 95 % interval over groups of prompts.

    The interval of a ratio of sums ``R = Σp / Σt`` by linearisation: with the sums p and t of each
    of G groups its variance is ``G / (G − 1) · Σ(p − R t)² / (Σt)²``, and Student's distribution
    stands for that of the error. NaN below ten groups, where it would be far too narrow. Source:
    Cochran, *Sampling Techniques* (1977), §2.11, and §9A.9 for clusters.

    Args:
        positive: sums of positive scores (…, group, category).
        asked: which groups there are (…, group).
    """
    totals = positive.sum("category")
    n, total = asked.sum("group"), totals.sum("group")
    enough = n.where(n >= FEWEST_GROUPS)
    t = xr.apply_ufunc(lambda n: stats.t.ppf(0.975, n - 1), enough)
    ratio = positive.sum("group") / total.where(total > 0)
    left = ((positive - ratio * totals) ** 2).sum("group")
    deviation = t * np.sqrt(left * enough / (enough - 1)) / total
    low, high = (ratio - deviation).clip(0, 1), (ratio + deviation).clip(0, 1)
    return ratio, low, high
