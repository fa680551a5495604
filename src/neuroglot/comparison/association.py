"""Whether what is shared goes with right answers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from neuroglot.answering.observations import Samples
from neuroglot.answering.statistics import CONFIDENCE, LEAST_CLUSTERS, Interval

Values = np.ndarray[Any, Any]
PER = 10.0  # an odds ratio is for a tenth more of the active neurons being shared
FEWEST_LANGUAGES = 4  # for an interval of a rank correlation
UNLIKELY_ODDS = 1e6  # beyond it there is no estimate but a separation


@dataclass(frozen=True)
class Slope:
    """What a tenth more sharing goes with.

    Attributes:
        odds_ratio: of a right answer.
        low: of the interval.
        high: of the interval.
        p: two-sided.
        prompts: that it is from, equal ones once.
        reason: why there is none.
    """

    odds_ratio: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    prompts: int = 0
    reason: str = ""


def correctness_on_sharing(
    correct: Values, shared: Values, counted: Values, samples: Samples
) -> Slope:
    """Logistic regression of right answers on sharing, with the language as covariate.

    Languages in which all answers are right, or all wrong, say nothing of the slope and are left
    out. Equal prompts are averaged and enter once; the errors are clustered by subject (Liang and
    Zeger 1986), and tested by Student's distribution with one degree of freedom less than there are
    subjects, as the normal one would be too ready to see something among few.

    Args:
        correct: whether the answer was right (item, language).
        shared: all-shared neurons over active ones (item, language).
        counted: which prompts count (item, language).
        samples: which prompts are one observation, and which items no independent samples.
    """
    language = np.broadcast_to(np.arange(correct.shape[1]), correct.shape)
    kept = counted.astype(bool) & ~np.isnan(shared) & ~np.isnan(correct.astype(float))
    observed = samples.observed(correct.astype(float), kept)
    frame = pd.DataFrame(
        {
            "correct": observed.numbers,
            "shared": PER * samples.observed(shared, kept).numbers,
            "language": samples.observed(language, kept).numbers,
            "cluster": observed.subjects,
        }
    )
    share = frame.groupby("language")["correct"].transform("mean")
    frame = frame[(share > 0) & (share < 1)]
    if frame.empty:
        return Slope(reason="in every language all answers are right or all wrong")
    if frame["cluster"].nunique() < LEAST_CLUSTERS:
        return Slope(reason=f"fewer than {LEAST_CLUSTERS} subjects")
    if frame.groupby("language")["shared"].agg(np.ptp).max() == 0:
        return Slope(reason="sharing is the same for all prompts of a language")
    return _fitted(frame)


def _fitted(frame: pd.DataFrame) -> Slope:
    languages = pd.get_dummies(frame["language"], dtype=float)
    known = pd.concat([frame[["shared"]], languages], axis=1).to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is looked at below
        try:
            found = GLM(frame["correct"].to_numpy(), known, Binomial()).fit(
                cov_type="cluster",
                cov_kwds={"groups": frame["cluster"].to_numpy()},
                use_t=True,
            )
        except (ValueError, np.linalg.LinAlgError) as error:
            return Slope(prompts=len(frame), reason=f"no fit: {error}")
    low, high = found.conf_int(1 - CONFIDENCE)[0]
    with np.errstate(over="ignore"):
        numbers = [float(np.exp(x)) for x in (found.params[0], low, high)]
    sound = bool(found.converged) and np.isfinite([*numbers, found.bse[0]]).all()
    if not sound or not 1 / UNLIKELY_ODDS < numbers[0] < UNLIKELY_ODDS:
        return Slope(prompts=len(frame), reason="no fit: sharing separates right from wrong")
    ratio, lowest, highest = numbers
    return Slope(ratio, lowest, highest, float(found.pvalues[0]), len(frame))


def rank_correlation(one: Values, other: Values) -> tuple[float, Interval]:
    """Spearman's correlation with the interval of Bonett and Wright (2000), at 95 %.

    Its observations are languages, each once, so that neither subjects nor equal prompts come in:
    the interval is for other languages with these items.

    Args:
        one: of each language (language,); NaN is left out.
        other: the same.

    Returns:
        NaN where fewer than four languages are known, or one of the two does not vary. Without an
        interval at plus or minus one.
    """
    known = ~(np.isnan(one) | np.isnan(other))
    one, other = one[known], other[known]
    n = len(one)
    if n < FEWEST_LANGUAGES or np.ptp(one) == 0 or np.ptp(other) == 0:
        return np.nan, (np.nan, np.nan)
    found = float(stats.spearmanr(one, other).statistic)
    if abs(found) > 1 - 1e-12:
        return found, (np.nan, np.nan)
    error = np.sqrt((1 + found**2 / 2) / (n - 3))
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    centre = np.arctanh(found)
    return found, (float(np.tanh(centre - reach)), float(np.tanh(centre + reach)))
