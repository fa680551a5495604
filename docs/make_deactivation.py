"""Deactivate every category on the embedded models, and write ``docs/deactivation-results.md``.

``python -m docs.make_deactivation`` takes about 40 minutes on four cores. Everything is kept in
``--out``; the same command goes on where it stopped, and only writes the page if nothing is left.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

import neuroglot as ng
from neuroglot.answering.differences import DIFFERENT, EQUIVALENT
from neuroglot.interventions.presets import Parts, amplify, deactivate
from neuroglot.reporting.cells import in_brackets, p_text, points, points_range
from neuroglot.reporting.kinds.outcome_findings import findings
from neuroglot.reporting.kinds.outcome_rows import (
    AGAINST_LABELS,
    STRICT,
    by_condition,
    condition_label,
    effect_rows,
)
from neuroglot.reporting.page import save_figures
from neuroglot.reporting.table import Row

MODELS = ("base", "aligned")
TASKS = ("facts", "inference", "editing_en_xx", "editing_xx_en")
TEMPLATES = ("native", "shared")
N_ITEMS = 100
FULL = ("facts", "native")  # the task on which parts and other edits are tried
BY_CONTRIBUTION = "Dose and response: the strongest by contribution"
BANDS = "Some layers only"
DOSES = (0.1, 0.25, 0.5, 0.75, 1.0)
THIRDS = ((0, 1), (2, 3), (4, 5))  # of the layers of the embedded models
MEMBERSHIPS = (0.5, 0.25)
DOCS = Path(__file__).parent

HEAD = """# What deactivation does to the embedded models

Written by `python -m docs.make_deactivation`, which keeps what it did and goes on if stopped; do
not edit. How it is done is in [deactivation](deactivation.md).

{n_items} items in ten languages for each model, task and template; {draws} draws of each control
for every prompt; neurons are switched off at the last prompt token and the answer's tokens.
Differences are accuracy less that of no edit or of random neurons, in percentage points, with 95 %
intervals over subjects, and *p* by itself and after Holm's correction over one table's model: \\* a
difference, = equivalence within five points; where there is neither, the items are too few to tell.
The number below a difference is of how many prompts the control could be drawn, where that is not
all; – where they are of fewer than ten subjects. *contribution* is the neurons' share of all
`|m|·‖v‖`, and in brackets, over the prompts that have a control from the same deciles, theirs and
that control's.
"""


Main = dict[tuple[str, str, str], xr.Dataset]
Others = dict[str, dict[str, xr.Dataset]]


@dataclass(frozen=True)
class Prepared:
    """A model with a task and its recording, made once, in a folder of its own."""

    model: ng.Model
    task: ng.ParallelTask
    recording: ng.Recording
    folder: Path

    def deactivate(self) -> xr.Dataset:
        """What is left of it is run, and the rest opened."""
        return deactivate(self.model, self.task, self.recording, out=self.folder)

    def of_all_shared(self, title: str, parts: Parts) -> xr.Dataset:
        """The same of parts of the all-shared neurons, in a folder of its own."""
        return deactivate(
            self.model,
            self.task,
            self.recording,
            categories=["all_shared"],
            parts=parts,
            out=self.folder / title,
        )

    def with_one_set(self, title: str) -> xr.Dataset:
        """Switch off what is all-shared for enough items of one half, and ask the other half."""
        development, test = (
            self.recording.select(items=[item["id"] for item in half.items])
            for half in ng.halves(self.task)
        )
        sets = [
            ng.NeuronSet.from_category(development, "all_shared", share) for share in MEMBERSHIPS
        ]
        return ng.intervene(
            self.model,
            self.task,
            {one.name: ng.Zero(one) for one in sets},
            recording=test,
            coordinates={"membership": MEMBERSHIPS},
            out=self.folder / title,
        )

    def amplified(self, title: str) -> xr.Dataset:
        """The best factor on one half, and what it does on the other."""
        return amplify(self.model, self.task, self.recording, out=self.folder / title)


def prepared(out: Path, name: str, task_name: str, template: str) -> Prepared:
    """Load the model and the task, and record, or open what was recorded."""
    model = ng.load_model(f"embedded/{name}")
    task = ng.load_task(task_name, limit=N_ITEMS, template=template)
    folder = out / f"{name}-{task_name}-{template}"
    return Prepared(model, task, ng.record(model, task, out=folder / "recording"), folder)


def main_results(out: Path) -> Main:
    """Every category beside its controls, by task, template and model."""
    return {
        (task, template, name): prepared(out, name, task, template).deactivate()
        for task, template, name in itertools.product(TASKS, TEMPLATES, MODELS)
    }


def other_results(out: Path) -> Others:
    """Parts of the all-shared neurons, and other ways to edit them, by title and model."""
    found: Others = {}
    for name in MODELS:
        here = prepared(out, name, *FULL)
        by_title = {
            BY_CONTRIBUTION: here.of_all_shared("doses", Parts(DOSES)),
            BANDS: here.of_all_shared("bands", Parts(bands=THIRDS)),
            "Kept alone": here.of_all_shared("kept", Parts(keep_only=True)),
            "One set for all items": here.with_one_set("one-set"),
            "Dose and response: the strongest by effective score": here.of_all_shared(
                "doses-by-answer", Parts((0.25, 0.5), rank_by="effective")
            ),
            "Amplified": here.amplified("amplified"),
        }
        for title, outcome in by_title.items():
            found.setdefault(title, {})[name] = outcome
    return found


def table(rows: dict[str, xr.Dataset], first: str) -> Iterator[str]:
    """Lines of a table of several outcomes, each under its name."""
    heads = [first, "condition", "neurons", "contribution", "accuracy", *AGAINST_LABELS.values()]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for name, outcome in rows.items():
        n_all = int(outcome["counted"].sum())
        found = by_condition(effect_rows(outcome))
        for place, (condition, here) in enumerate(found.items()):
            cells = [
                f"{name}, {100 * here[0]['accuracy_against']:.1f} %" if place == 0 else "",
                condition_label(condition),
                f"{here[0]['neurons']:,.0f}",
                share_cell(here),
                f"{100 * here[0]['accuracy']:.1f} %",
                *(_cell(row, n_all) for row in here),
            ]
            yield f"| {' | '.join(cells)} |"


def share_cell(rows: Sequence[Row]) -> str:
    """Share of all contributions, and beside it that of the control that should have the same."""
    said = f"{100 * rows[0]['share']:.0f}%"
    matched = [row for row in rows if row["against"] == STRICT[-1]]
    if not matched or np.isnan(matched[0]["share_against"]):
        return said
    own, other = (100 * matched[0][name] for name in ("share", "share_against"))
    return f"{said} ({own:.0f}%, {other:.0f}%)"


def _cell(row: Row, n_all: int) -> str:
    if np.isnan(row["difference"]):
        return "–"
    some = f"<br>{row['prompts']:,}" if row["prompts"] < n_all else ""
    tested = f"<br>p {p_text(row['p'])}, corrected {p_text(row['p_holm'])}"
    ends = points_range(row["difference_low"], row["difference_high"])
    known = [] if np.isnan(row["difference_low"]) else [ends]
    mark = {DIFFERENT: "\\*", EQUIVALENT: " ="}.get(row["verdict"], "")
    return f"{points(row['difference'])}{mark}{in_brackets(known)}{tested}{some}"


def page(main: Main, others: Others, note: str) -> str:
    """The page as Markdown."""
    draws = next(iter(main.values())).attrs["draws"]
    lines = [HEAD.format(n_items=N_ITEMS, draws=draws)]
    for task, template in itertools.product(TASKS, TEMPLATES):
        here = {name: main[task, template, name] for name in MODELS}
        lines += [f"## {task}, {template} template", ""]
        lines += [*table(here, "model, accuracy"), ""]
        lines += [*_findings(here), ""]
    lines += ["![Facts: accuracy beside no edit and controls](images/deactivation.png)", ""]
    lines += ["![Effect per neuron](images/effect-per-neuron.png)", ""]
    lines += [f"# Parts of the all-shared neurons, and other edits ({', '.join(FULL)})", ""]
    for title, by_model in others.items():
        lines += [f"## {title}", ""]
        if "development_accuracy" in next(iter(by_model.values())):
            lines += [*_development(by_model), ""]
        lines += [*table(by_model, "model, accuracy"), ""]
        lines += [*_findings(by_model), ""]
    lines += ["![Dose and response](images/dose-response.png)", ""]
    lines += ["![Some layers only](images/layer-bands.png)", "", note]
    return "\n".join(lines) + "\n"


def _findings(by_model: dict[str, xr.Dataset]) -> list[str]:
    return [
        f"- **{name}**, {text}"
        for name, found in by_model.items()
        for text in findings(effect_rows(found))
    ]


def _development(by_model: dict[str, xr.Dataset]) -> Iterator[str]:
    """Accuracies from which the factor was chosen."""
    for name, outcome in by_model.items():
        tried = outcome["development_accuracy"].to_series().items()
        said = ", ".join(f"{100 * value:.1f} % at {factor:g}" for factor, value in tried)
        yield f"- {name}, on the half for choosing: {said}."


def figures(main: Main, others: Others, out: Path) -> None:
    """Draw them, and keep those that the page shows."""
    shown = {
        f"{name}, {template}/deactivation": main["facts", template, name]
        for name, template in itertools.product(MODELS, TEMPLATES)
    }
    for title in (BY_CONTRIBUTION, BANDS):
        shown |= {f"{name}, native/{title}": found for name, found in others[title].items()}
    save_figures(shown, out)
    for name in ("deactivation", "effect-per-neuron", "dose-response", "layer-bands"):
        (DOCS / "images" / f"{name}.png").write_bytes((out / f"{name}.png").read_bytes())


def main() -> None:
    """Run what is left, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("deactivation-results"))
    out = parser.parse_args().out
    began = time.perf_counter()
    found, others = main_results(out), other_results(out)
    figures(found, others, out / "figures")
    minutes = (time.perf_counter() - began) / 60
    note = f"(The last run of the command took {minutes:.0f} minutes on {os.cpu_count()} cores.)"
    (DOCS / "deactivation-results.md").write_text(page(found, others, note), encoding="utf-8")


if __name__ == "__main__":
    main()
