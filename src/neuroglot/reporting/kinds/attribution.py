"""Results of :func:`neuroglot.attribute`: what categories of sharing contribute to the answers."""

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
    "How many neurons are all-shared, and what they have of the positive scores in correct "
    "answers: over all layers, by language or the mean over languages with the lowest and highest "
    "of them. Scores say what each neuron contributes to the answer, at the token from which it is "
    "predicted. Contribution: the size of what a neuron writes. Effective score: how far that "
    "raises the logit of the target. Direct logit: the same through the norms on the way. As many "
    "random neurons would have their number's share.",
)


def attribution_rows(attribution: xr.Dataset, score: str) -> list[dict[str, Any]]:
    """One row a language: how many neurons are all-shared, and what they contribute.

    Over all layers, in prompts answered correctly; see :func:`neuroglot.share_of_correct`.
    """
    found, counts = share_of_correct(attribution, score=score), attribution["n_prompts"]
    return [
        {
            "language": str(language),
            "prompts": int(counts.sel(answered="all", language=language)),
            "correct": int(counts.sel(answered="correct", language=language)),
            "fraction": float(found["model_fraction"].sel(language=language)),
            "share": float(found["model_share"].sel(language=language)),
            "low": float(found["model_share_low"].sel(language=language)),
            "high": float(found["model_share_high"].sel(language=language)),
        }
        for language in found["language"].to_numpy()
    ]


def score_rows(runs: Group) -> list[dict[str, Any]]:
    """One row a run: how many neurons are all-shared, and their share of the score.

    Over all layers, in prompts answered correctly: the mean over languages, and the lowest and
    the highest of them.
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
    """What all-shared neurons contribute to correct answers, by run, where there are several."""
    title = "All-shared neurons in correct answers, by run"
    rows, is_alone = score_rows(runs), len(runs) == 1
    return Table(title, BY_RUN, rows, explained=EXPLAINED, is_for_page=is_alone)


def tables(runs: Group) -> list[Table]:
    """The same by run, and by language; a terminal shows one of them, and a page both."""
    made = [score_table(runs)]
    for run, attribution in runs.items():
        score = main_score(attribution)
        title = f"{run}: all-shared neurons in correct answers ({SCORE_LABELS[score]})"
        rows = attribution_rows(attribution, score)
        made.append(Table(title, BY_LANGUAGE, rows, explained=EXPLAINED, is_for_page=len(runs) > 1))
    return made


def figures(_: str, runs: Group) -> Figures:
    """One figure of all runs, and some of each."""
    made = {"score-shares": attribution_figures.size_and_share(runs)}
    for run, attribution in runs.items():
        for name, chart in attribution_figures.figures(attribution, run).items():
            made[f"{name}-{run}"] = chart
    return made


def records(attribution: xr.Dataset) -> dict[str, Any]:
    """The rows by language, of every score."""
    scores = [str(score) for score in attribution["score"].to_numpy()]
    return {"all_shared": {score: attribution_rows(attribution, score) for score in scores}}


def sums(attribution: xr.Dataset) -> pd.DataFrame:
    """One row for each score, kind of answer, language, layer and category."""
    kept = [n for n in map(str, attribution) if n != "mean_score" and not n.startswith("model_")]
    return attribution[kept].to_dataframe().reset_index()


ATTRIBUTION = Kind(
    KIND,
    tables=tables,
    figures=figures,
    records=records,
    sheet=Sheet("attribution", sums, ("run", "score", "answered", "language", "layer", "category")),
)
