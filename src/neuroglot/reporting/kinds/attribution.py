"""Results of :func:`neuroglot.attribute`: contributions of sharing categories to the answers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from neuroglot.attribution.by_category import KIND, share_of_correct
from neuroglot.reporting.cells import percent, percent_with
from neuroglot.reporting.kind import Figures, Group, Kind, Sheet
from neuroglot.reporting.kinds import attribution_figures
from neuroglot.reporting.style import SCORE_LABELS, main_score
from neuroglot.reporting.table import Column, Table

BY_RUN = (
    *(Column(key, (key,)) for key in ("run", "score")),
    *(Column(key, (key,), percent) for key in ("neurons", "share", "lowest", "highest")),
)
BY_LANGUAGE = (
    *(Column(key, (key,)) for key in ("language", "prompts", "correct")),
    Column("neurons", ("fraction",), percent),
    Column("share of the score (95 %)", ("share", "low", "high"), percent_with),
)
EXPLAINED = (
    "Neurons: the share of all neurons that are all-shared. Share: their share of the positive "
    "scores in correct answers. Both are over all layers, by language, or as the mean over "
    "languages with the lowest and the highest. A score measures what a neuron contributes to the "
    "answer at the token from which it is predicted. Contribution: the size of what it writes. "
    "Effective score: how far that raises the logit of the target. Direct logit: the same through "
    "the final norm. As many random neurons would have a share equal to their number's.",
)


def attribution_rows(attribution: xr.Dataset, score: str) -> list[dict[str, Any]]:
    """One row for each language: the share of all-shared neurons, and their share of a score.

    Both are over all layers and correct answers; see :func:`neuroglot.share_of_correct`.
    """
    shares, counts = share_of_correct(attribution, score=score), attribution["n_prompts"]
    return [
        {
            "language": str(language),
            "prompts": int(counts.sel(answered="all", language=language)),
            "correct": int(counts.sel(answered="correct", language=language)),
            "fraction": float(shares["model_fraction"].sel(language=language)),
            "share": float(shares["model_share"].sel(language=language)),
            "low": float(shares["model_share_low"].sel(language=language)),
            "high": float(shares["model_share_high"].sel(language=language)),
        }
        for language in shares["language"].to_numpy()
    ]


def score_rows(runs: Group) -> list[dict[str, Any]]:
    """One row for each run: the share of all-shared neurons, and their share of the score.

    Both are over all layers and correct answers: the mean over languages, the lowest and the
    highest.
    """
    rows = []
    for run, attribution in runs.items():
        score = main_score(attribution)
        of_correct = share_of_correct(attribution, score=score)
        share = of_correct["model_share"]
        rows.append(
            {
                "run": run,
                "score": SCORE_LABELS[score],
                "neurons": float(of_correct["model_fraction"].mean()),
                "share": float(share.mean()),
                "lowest": float(share.min()),
                "highest": float(share.max()),
            }
        )
    return rows


def score_table(runs: Group) -> Table:
    """The table of all-shared neurons in correct answers, with one row for each run."""
    title = "All-shared neurons in correct answers, by run"
    return Table(title, BY_RUN, score_rows(runs), explained=EXPLAINED, is_for_page=len(runs) == 1)


def tables(runs: Group) -> list[Table]:
    """The tables by run and by language; a terminal shows one of them, and a page both."""
    shown = [score_table(runs)]
    for run, attribution in runs.items():
        score = main_score(attribution)
        title = f"{run}: all-shared neurons in correct answers ({SCORE_LABELS[score]})"
        rows, is_for_page = attribution_rows(attribution, score), len(runs) > 1
        shown.append(Table(title, BY_LANGUAGE, rows, explained=EXPLAINED, is_for_page=is_for_page))
    return shown


def figures(_: str, runs: Group) -> Figures:
    """One figure of all runs, and several figures of each run."""
    return {"score-shares": attribution_figures.size_and_share(runs)} | {
        f"{name}-{run}": chart
        for run, attribution in runs.items()
        for name, chart in attribution_figures.figures(attribution, run).items()
    }


def records(attribution: xr.Dataset) -> dict[str, Any]:
    """The rows by language for every score."""
    scores = map(str, attribution["score"].to_numpy())
    return {"all_shared": {score: attribution_rows(attribution, score) for score in scores}}


def sums(attribution: xr.Dataset) -> pd.DataFrame:
    """One row for each score, kind of answer, language, layer and category."""
    names = [n for n in map(str, attribution) if n != "mean_score" and not n.startswith("model_")]
    return attribution[names].to_dataframe().reset_index()


ATTRIBUTION = Kind(
    KIND,
    tables=tables,
    figures=figures,
    records=records,
    sheet=Sheet("attribution", sums, ("run", "score", "answered", "language", "layer", "category")),
)
