"""Try the tests on data sets in which nothing is to be found, and write ``docs/statistics.md``.

``python -m docs.make_statistics`` takes about 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from tests.answering.simulated import (
    PLAIN,
    SCENARIOS,
    TESTS,
    Scenario,
    called_equivalent,
    found,
)

PAGE = Path(__file__).parent / "statistics.md"
N_SETS, AT_ONCE = 2000, 50
EQUIVALENCE = (PLAIN, next(one for one in SCENARIOS if one.subjects == 100))

INTRODUCTION = """# How often the tests find something where there is nothing

Written by `python -m docs.make_statistics`; do not edit. How the tests work is in
[method](method.md).

A test at the level of 5 % should find something in 5 % of the data sets in which there is nothing.
Each row is {n:,} such data sets, made as `tests/answering/simulated.py` says. A prompt is right
with a probability that depends on its subject, its relation, its language and chance; a condition,
its control and no edit differ by nothing on average, though edits may help some subjects and harm
others. The figures are percentages of data sets with *p* < .05, each known to about one point
either way (95 %).

- *against no edit*, *against a control*: the difference of accuracy over three languages; the
  control is the mean of five draws, unless the row says otherwise;
- *in one language*: the first, against no edit;
- *over relations*: against the control, where there are at least ten relations;
- *placebo*: the first draw of the control against the others;
- *odds of sharing*: of right answers on how much is shared, which differ by subject as well;
- *both, corrected*: data sets in which the difference to no edit or to the control is below .05
  after Holm's correction; *by language, corrected*: the same in any language;
- *interval of accuracy*: how often the 95 % interval of an accuracy misses what prompts of that
  kind have on average; over relations where there are at least ten.
"""

EDITS_BY_RELATION = """
Where edits help some relations and harm others, and nothing on average over relations, they do
change the accuracy on the relations that were asked: the tests over subjects say so, as they should
of these relations, and the test over relations says that other relations need not show it.
"""


def rates(scenario: Scenario, n: int, pool: ProcessPoolExecutor) -> dict[str, float]:
    """Share of data sets in which each test finds something."""
    parts = list(pool.map(partial(found, scenario), _ranges(n)))
    return {name: float(np.concatenate([one[name] for one in parts]).mean()) for name in parts[0]}


def _ranges(n: int) -> list[range]:
    return [range(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE)]


def table(n: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """Lines, one for each kind of data set."""
    yield f"| data sets | {' | '.join(TESTS)} |"
    yield f"|---|{'---|' * len(TESTS)}"
    for scenario in tqdm(SCENARIOS, unit="kind"):
        here = rates(scenario, n, pool)
        cells = [f"{100 * here[name]:.1f}" if name in here else "–" for name in TESTS]
        yield f"| {scenario.name} | {' | '.join(cells)} |"


def equivalence(n: int, pool: ProcessPoolExecutor) -> Iterator[str]:
    """How often a difference of just the bound is called equivalent."""
    for scenario in EQUIVALENCE:
        parts: list[Any] = list(pool.map(partial(called_equivalent, scenario), _ranges(n)))
        k = int(np.concatenate(parts).sum())
        low, high = stats.binomtest(k, n).proportion_ci(method="wilson")
        yield (
            f"- {scenario.name}, and a condition that differs by five points, the bound of "
            f"equivalence: called equivalent in {100 * k / n:.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f} %)."
        )


def main() -> None:
    """Draw, test, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--of", type=int, default=N_SETS, help="data sets of each kind")
    n = parser.parse_args().of
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        lines = [INTRODUCTION.format(n=n), *table(n, pool), EDITS_BY_RELATION]
        lines += [*equivalence(n, pool)]
    sys.stdout.write("\n".join(lines) + "\n")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
