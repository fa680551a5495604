"""Whether sharing is associated with right answers."""

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
PER = 10.0  # odds ratios are for a tenth more of the active neurons being shared
FEWEST_LANGUAGES = 4  # for an interval of a rank correlation
UNLIKELY_ODDS = 1e6  # a larger odds ratio is not an estimate but a sign of separation


@dataclass(frozen=True)
class Slope:
    """The odds ratio of a right answer, for a tenth more of the active neurons being shared.

    Attributes:
        odds_ratio: the odds ratio.
        low: the lower end of its interval.
        high: the upper end of its interval.
        p: the two-sided p-value.
        prompts: the number of prompts in the regression, with equal prompts counted once.
        reason: why there is no estimate.
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

    Languages in which all answers are right, or all wrong, do not inform the slope and are left
    out. Equal prompts are averaged and enter once. Standard errors are clustered by subject (Liang
    and Zeger 1986). The test uses Student's distribution, with one degree of freedom less than
    there are subjects, because the normal distribution finds too much with few subjects.

    Args:
        correct: whether the answer was right (item, language).
        shared: all-shared neurons over active ones (item, language).
        counted: which prompts count (item, language).
        samples: which prompts are one observation, and which items are no independent samples.
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
    predictors = pd.concat([frame[["shared"]], languages], axis=1).to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence and separation are checked below
        try:
            fit = GLM(frame["correct"].to_numpy(), predictors, Binomial()).fit(
                cov_type="cluster",
                cov_kwds={"groups": frame["cluster"].to_numpy()},
                use_t=True,
            )
        except (ValueError, np.linalg.LinAlgError) as error:
            return Slope(prompts=len(frame), reason=f"no fit: {error}")
    with np.errstate(over="ignore"):
        odds = (fit.params[0], *fit.conf_int(1 - CONFIDENCE)[0])
        ratio, low, high = (float(np.exp(log_odds)) for log_odds in odds)
    has_converged = bool(fit.converged) and np.isfinite([ratio, low, high, fit.bse[0]]).all()
    if not has_converged or not 1 / UNLIKELY_ODDS < ratio < UNLIKELY_ODDS:
        return Slope(prompts=len(frame), reason="no fit: sharing separates right from wrong")
    return Slope(ratio, low, high, float(fit.pvalues[0]), len(frame))


def rank_correlation(one: Values, other: Values) -> tuple[float, Interval]:
    """Spearman's correlation over languages, with the 95 % interval of Bonett and Wright (2000).

    The observations are languages, so the interval is for other languages with the same items.

    Args:
        one: a number for each language (language,); NaN is left out.
        other: another number for each language (language,); NaN is left out.

    Returns:
        The correlation and its interval. Both are NaN for fewer than four languages, or if one of
        the numbers does not vary; the interval is NaN at a correlation of plus or minus one.
    """
    is_known = ~(np.isnan(one) | np.isnan(other))
    one, other = one[is_known], other[is_known]
    n = len(one)
    if n < FEWEST_LANGUAGES or np.ptp(one) == 0 or np.ptp(other) == 0:
        return np.nan, (np.nan, np.nan)
    correlation = float(stats.spearmanr(one, other).statistic)
    if abs(correlation) > 1 - 1e-12:
        return correlation, (np.nan, np.nan)
    error = np.sqrt((1 + correlation**2 / 2) / (n - 3))
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2) * error
    centre = np.arctanh(correlation)
    return correlation, (float(np.tanh(centre - reach)), float(np.tanh(centre + reach)))
