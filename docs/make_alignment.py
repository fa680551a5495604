"""Align ``embedded/base`` in several ways, and write ``docs/alignment-results.md``.

``python -m docs.make_alignment`` takes about 50 minutes on four cores. Everything is kept in
``--out``; the same command goes on where it stopped, and only writes the page if nothing is left.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import neuroglot as ng
from neuroglot.answering.observations import samples_of
from neuroglot.answering.statistics import clustered_interval
from neuroglot.comparison.association import rank_correlation
from neuroglot.reporting.cells import points
from neuroglot.reporting.kinds.alignment import held_out_sharing
from neuroglot.reporting.page import save_figures

SEEDS = (0, 1, 2)
MEMBERSHIP = 0.1  # of the all-shared neurons that are trained alone
CONTROLS = ("unpaired", "sharing, mismatched")
# The learning rate is half of the base model's at its peak, for all methods; it was not tuned.
TRAINING = ng.Training(steps=300, pairs=32, learning_rate=1e-3, bf16=True, checks=2)
# Method, and whether texts are paired with other items.
METHODS = {
    "translation": ("translation", False),
    "instruction": ("instruction", False),
    "sharing": ("sharing", False),
    "unpaired": ("unpaired", False),
    "sharing, mismatched": ("sharing", True),
}
TIMES = "seconds.txt"
MASKED = ("all-shared neurons", "random neurons")
NEVER = ("language_held_out", "both_held_out")  # parts in languages that the fact was never in
PARTS = {
    "trained": "trained",
    "item held out": "item_held_out",
    "language held out": "language_held_out",
    "both held out": "both_held_out",
}
DOCS = Path(__file__).parent
Runs = dict[str, list[xr.Dataset]]
"""Results of a method, one for each seed."""
Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Interval = tuple[float, float, float]
"""A difference with its ends."""


def method_runs(model: ng.Model, task: ng.ParallelTask, out: Path) -> Runs:
    """Table A: everything is trained."""
    found: Runs = {}
    for seed in SEEDS:
        for name, (method, mismatched) in METHODS.items():
            training = replace(TRAINING, seed=seed, mismatched=mismatched)
            folder = out / f"{name.replace(', ', '-')}-{seed}"
            result = ng.align(model, task, method=method, out=folder, training=training)
            found.setdefault(name, []).append(result)
    return found


def all_shared(out: Path, seed: int) -> ng.NeuronSet:
    """Those of the base model, on the items that are trained under this seed."""
    recording = ng.load(out / f"sharing-{seed}" / "training" / "before")
    assert isinstance(recording, ng.Recording)
    return ng.NeuronSet.from_category(recording, "all_shared", MEMBERSHIP)


def masked_runs(model: ng.Model, task: ng.ParallelTask, out: Path) -> Runs:
    """Table B: ``sharing``, where only some neurons are trained."""
    found: Runs = {}
    for seed in SEEDS:
        shared = all_shared(out, seed)
        for name, mask in zip(MASKED, (shared, shared.sample_like(seed)), strict=True):
            training = replace(TRAINING, seed=seed)
            folder = out / f"masked-{name.partition(' ')[0]}-{seed}"
            result = ng.align(
                model, task, method="sharing", out=folder, mask=mask, training=training
            )
            found.setdefault(name, []).append(result)
    return found


def sharing(result: xr.Dataset, *, shuffled: bool = False) -> np.ndarray[Any, Any]:
    """All-shared share of all neurons on held-out items (check,), or its baseline."""
    name = "fraction_if_items_shuffled" if shuffled else "fraction"
    return held_out_sharing(result, name).to_numpy()


def never_taught(result: xr.Dataset, check: int) -> np.ndarray[Any, Any]:
    """Right answers (item, language) where the fact was in no text; NaN elsewhere."""
    right = result["correct"].isel(check=check).astype(float)
    return right.where(result["part_of"].isin(NEVER)).to_numpy()


def difference(pairs: list[Pair], runs: list[xr.Dataset]) -> Interval:
    """Mean difference over prompts and seeds, with its interval over subjects."""
    values, subjects = [], []
    for (one, other), run in zip(pairs, runs, strict=True):
        known = ~np.isnan(one)
        observed = samples_of(run).observed(one - other, known)
        values.append(observed.numbers)
        subjects.append(observed.subjects)
    together = np.concatenate(values)
    return (float(together.mean()), *clustered_interval(together, np.concatenate(subjects), 0))


def since_before(runs: list[xr.Dataset]) -> Interval:
    """Change in accuracy where the fact was in no text."""
    return difference([(never_taught(run, -1), never_taught(run, 0)) for run in runs], runs)


def beyond(runs: list[xr.Dataset], control: list[xr.Dataset]) -> Interval:
    """The same against another way to train."""
    pairs = [
        (never_taught(one, -1), never_taught(other, -1))
        for one, other in zip(runs, control, strict=True)
    ]
    return difference(pairs, runs)


HEAD = """# What alignment does to `embedded/base`

Written by `python -m docs.make_alignment`, which keeps what it did and goes on if stopped; do not
edit. How it is done is in [alignment](alignment.md).

Every training: {steps} steps of {pairs} pairs of texts from the facts in ten languages, a quarter
of them held out, {n_seeds} seeds (each with its own held-out facts, order and, in table B, random
neurons); the same texts in the same order for every row of a seed. Accuracy is of up to
{items} facts that were trained and as many that were not. *Never taught* are the prompts that ask
for a fact in a language in which neither this training nor the one before ever stated it; there,
chance is 10 %. *All-shared* is the share of all neurons, on held-out facts, and in brackets what
shuffled items give. Numbers are means over seeds, and in square brackets the least and the
greatest.
"""


NEVER_TAUGHT = """
Accuracy where a fact was never taught, in points, over all seeds, with 95 % intervals over
subjects:
"""
MISMATCHED = """
*Mismatched* pairs each text with another item's: the control of the method that it names.
"""
MASKS = """The neurons that are all-shared for at least {share:.0%} of the trained facts ({sizes} of
them, by seed), or as many random ones of the same layers.
"""


def spread(values: list[float], *, sign: bool = False, digits: int = 1) -> str:
    """Mean, least and greatest of the seeds, in percentage points."""
    shown = [
        f"{100 * x:{'+' if sign else ''}.{digits}f}".replace("-", "−")
        for x in (np.mean(values), min(values), max(values))
    ]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def accuracy_cells(runs: list[xr.Dataset], check: int) -> Iterator[str]:
    """By part, before or after training."""
    for part in PARTS.values():
        yield spread([float(run["accuracy"].isel(check=check).sel(part=part)) for run in runs])
    yield spread([float(np.nanmean(never_taught(run, check))) for run in runs])


def shared_cell(runs: list[xr.Dataset], check: int) -> str:
    """All-shared and its baseline, before or after training."""
    shared = [float(sharing(run)[check]) for run in runs]
    shuffled = [float(sharing(run, shuffled=True)[check]) for run in runs]
    return f"{spread(shared, digits=2)} ({100 * np.mean(shuffled):.2f})"


def table(found: Runs) -> Iterator[str]:
    """Lines of a table: before, and after each way to train."""
    heads = ["trained by", *(f"accuracy, {name}" for name in PARTS), "**never taught**"]
    yield f"| {' | '.join([*heads, 'all-shared'])} |"
    yield f"|{'---|' * (len(heads) + 1)}"
    first = next(iter(found.values()))
    yield f"| (before) | {' | '.join(accuracy_cells(first, 0))} | {shared_cell(first, 0)} |"
    for name, runs in found.items():
        yield f"| {name} | {' | '.join(accuracy_cells(runs, -1))} | {shared_cell(runs, -1)} |"


def in_points(found: Interval) -> str:
    """A difference with its interval, in percentage points."""
    middle, low, high = map(points, found)
    return f"{middle} ({low} to {high})"


def differences(found: Runs, *controls: str) -> Iterator[str]:
    """Lines of a table: what each way to train changes where a fact was never taught."""
    heads = ["trained by", "change", *(f"less that of {control}" for control in controls)]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for name, runs in found.items():
        against = ["" if x == name else in_points(beyond(runs, found[x])) for x in controls]
        yield f"| {' | '.join([name, in_points(since_before(runs)), *against])} |"


def excess(result: xr.Dataset) -> float:
    """Change in all-shared beyond what shuffled items give."""
    over = sharing(result) - sharing(result, shuffled=True)
    return float(over[-1] - over[0])


def gain(result: xr.Dataset) -> float:
    """Change in accuracy where the fact was never taught."""
    return float(np.nanmean(never_taught(result, -1)) - np.nanmean(never_taught(result, 0)))


def answer(methods: Runs, masked: Runs) -> str:
    """Two sentences: did both rise together, and is sharing alone enough?"""
    ways = list((methods | masked).values())
    shared, gains = (
        np.array([np.mean([measure(run) for run in runs]) for runs in ways])
        for measure in (excess, gain)
    )
    r, (low, high) = rank_correlation(shared, gains)
    both = int(((shared > 0) & (gains > 0)).sum())
    together = "rose together" if low > 0 and both > len(ways) / 2 else "did not rise together"
    numbers = f"{r:+.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−")
    alone = methods["sharing"]
    changes = [since_before(alone), *(beyond(alone, methods[x]) for x in CONTROLS)]
    enough = "is enough" if min(change[1] for change in changes) > 0 else "is not enough"
    before, after = (np.mean([sharing(run)[k] for run in alone]) for k in (0, -1))
    return (
        f"Over the {len(ways)} ways to train, sharing beyond its baseline and accuracy where facts "
        f"were never taught **{together}**: sharing rose in {int((shared > 0).sum())} of them, "
        f"accuracy in {int((gains > 0).sum())}, both in {both}, and Spearman's correlation of the "
        f"two changes is {numbers}. `sharing` alone **{enough}**: it took all-shared neurons from "
        f"{100 * before:.2f} to {100 * after:.2f} % of all, and accuracy changed by "
        f"{in_points(changes[0])} points, which is {in_points(changes[1])} against the same texts "
        f"unpaired and {in_points(changes[2])} against the same term on mismatched items."
    )


def changed_lines(found: Runs) -> Iterator[str]:
    """How many weights each way to train has changed, in the first seed."""
    for name, runs in found.items():
        n, of = (int(runs[0][key].sum()) for key in ("changed", "weights"))
        yield f"- {name}: {n:,} of {of:,} weights"


def page(methods: Runs, masked: Runs, sizes: list[int], note: str) -> str:
    """The page as Markdown."""
    head = HEAD.format(
        steps=TRAINING.steps, pairs=TRAINING.pairs, n_seeds=len(SEEDS), items=TRAINING.checked_items
    )
    lines = [
        head,
        f"## The answer\n\n{answer(methods, masked)}\n",
        "## Table A: everything is trained\n",
        *table(methods),
        NEVER_TAUGHT,
        *differences(methods, *CONTROLS),
        MISMATCHED,
        "## Table B: only some neurons are trained, by `sharing`\n",
        MASKS.format(share=MEMBERSHIP, sizes=" / ".join(map(str, sizes))),
        *table(masked),
        NEVER_TAUGHT,
        *differences(masked, MASKED[1]),
        "\n## What was changed\n",
        *changed_lines(methods | masked),
        "\n![Loss, accuracy and sharing](images/alignment.png)\n",
        note,
    ]
    return "\n".join(lines) + "\n"


@contextmanager
def timed(out: Path) -> Iterator[None]:
    """Note how long this took, beside what earlier calls did."""
    began = time.perf_counter()
    try:
        yield
    finally:
        with (out / TIMES).open("a") as file:
            file.write(f"{time.perf_counter() - began:.1f}\n")


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("alignment-results"))
    out = parser.parse_args().out
    model, task = ng.load_model("embedded/base"), ng.load_task("facts")
    with timed(out):
        methods = method_runs(model, task, out)
        masked = masked_runs(model, task, out)
    shown = {f"{name}/alignment": runs[0] for name, runs in (methods | masked).items()}
    save_figures(shown, out / "figures")
    (DOCS / "images" / "alignment.png").write_bytes((out / "figures/alignment.png").read_bytes())
    minutes = sum(map(float, (out / TIMES).read_text().split())) / 60
    note = f"(All of it took {minutes:.0f} minutes on {os.cpu_count()} cores.)"
    sizes = [len(all_shared(out, seed)) for seed in SEEDS]
    (DOCS / "alignment-results.md").write_text(page(methods, masked, sizes, note), encoding="utf-8")


if __name__ == "__main__":
    main()
