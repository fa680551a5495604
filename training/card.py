"""Measure the embedded models and write their card: ``python -m training.card``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

import neuroglot as ng
from neuroglot.answering.observations import SAME, samples_of
from neuroglot.answering.statistics import accuracy_interval
from neuroglot.models.loading import EMBEDDED
from neuroglot.store.provenance import versions
from neuroglot.tasks.guessing import majority
from training.baselines import (
    guesses_right,
    hypothesis_only_accuracy,
    overlap_guesser,
)
from training.corpus import N_INFERENCE_CASES, corpus
from training.embedded_tasks.names import LANGUAGES
from training.train import PACKAGED

CARD = Path(__file__).parents[1] / "docs" / "embedded-models.md"
# Items of each task that are measured, the first of a seeded order; all would take half an hour.
# Prompts in English only are no transfer in the tasks that cross languages.
CROSSING = ("editing_en_xx", "editing_xx_en")
MEASURED = {
    ("facts", "native"): 400,
    ("facts", "shared"): 200,
    ("inference", "native"): 270,
    ("inference", "shared"): 150,
    ("editing_xx_xx", "native"): 80,
    ("editing_en_xx", "native"): 80,
    ("editing_xx_en", "native"): 80,
}
WHO = ("base", "aligned", "majority", "name overlap", "chance")


def measure(models: dict[str, ng.Model], task_name: str, template: str, limit: int) -> pd.DataFrame:
    """One row for each prompt: what it is, and how probably each of ``WHO`` answers it right."""
    whole = ng.load_task(task_name, template=template)
    task = whole.first(limit)
    answers = {name: ng.evaluate(model, task) for name, model in models.items()}
    right = {name: found["correct"].to_numpy() for name, found in answers.items()}
    # Both models have one tokenizer, so the same prompts are equal.
    one = next(iter(answers.values()))
    same, subjects = one[SAME].to_numpy(), samples_of(one).subjects
    right["majority"] = majority(task)
    right["name overlap"] = guesses_right(task, overlap_guesser)
    rows = [
        {
            "task": task_name,
            "template": template,
            "item": item["id"],
            "relation": item["relation"],
            "language": language,
            "held_out": language in item["held_out"],
            "same": same[i, j],
            "cluster": subjects[i],
            "chance": 1 / len(item["choices"][language]),
            **{who: float(correct[i, j]) for who, correct in right.items()},
        }
        for i, item in enumerate(task.items)
        for j, language in enumerate(task.languages)
    ]
    return pd.DataFrame(rows)


def shares(prompts: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share of right answers of each of ``WHO``, and the number of prompts, by some columns."""
    grouped = prompts.groupby(by, sort=False)
    table = grouped[list(WHO)].mean()
    table.insert(0, "prompts", grouped.size())
    return table.reset_index()


def _cells(row: pd.Series) -> list[str]:
    return [f"{100 * float(row[who]):.1f}" for who in WHO]


def breakdown(prompts: pd.DataFrame, by: str) -> list[list[str]]:
    """Rows of a table: one for each value of ``by``, taught and held-out prompts apart."""
    table = shares(prompts, [by, "held_out"])
    return [
        [
            str(row[by]),
            "held out" if row["held_out"] else "taught",
            str(row["prompts"]),
            *_cells(row),
        ]
        for _, row in table.sort_values([by, "held_out"], kind="stable").iterrows()
    ]


def with_interval(prompts: pd.DataFrame, who: str) -> str:
    """``61.3 (58.0–64.5)``: the share in per cent, with its interval over subjects.

    Equal prompts count once.
    """
    observed = prompts.groupby(["language", "same"]).agg({who: "mean", "cluster": "first"})
    right = observed[who].to_numpy(dtype=float)
    low, high = accuracy_interval(right, observed["cluster"].to_numpy(), 0)
    return f"{100 * right.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})"


def overall(prompts: pd.DataFrame, name: str) -> list[str]:
    """Row of a table: models with intervals, baselines without."""
    models = [with_interval(prompts, who) for who in WHO[:2]]
    return [name, str(len(prompts)), *models, *_cells(prompts.mean(numeric_only=True))[2:]]


def fact_rows(prompts: pd.DataFrame) -> list[list[str]]:
    """Real and invented, taught and held out."""
    invented = prompts["relation"].str.startswith("invented_")
    rows = []
    for kind, chosen in (("real", ~invented), ("invented", invented)):
        for what, held in (("taught", ~prompts["held_out"]), ("held out", prompts["held_out"])):
            rows.append(overall(prompts[chosen & held], f"{kind}, {what}"))
    return rows


def sections(measured: dict[tuple[str, str], pd.DataFrame]) -> Iterator[dict[str, object]]:
    """What the card shows of each task and template."""
    for (task, template), prompts in measured.items():
        transfer = prompts[prompts["language"] != "en"] if task in CROSSING else prompts
        yield {
            "title": f"`{task}`, {template} template",
            "n_items": prompts["item"].nunique(),
            "rows": fact_rows(prompts) if task == "facts" else [overall(transfer, task)],
            "by_language": breakdown(prompts, "language"),
            "by_relation": breakdown(prompts, "relation"),
        }


def training_rows() -> list[list[str]]:
    """One row a stage: steps, tokens and time of the packaged run."""
    report = json.loads((PACKAGED / "training.json").read_text(encoding="utf-8"))
    return [
        [
            name,
            str(stage["steps"]),
            f"{stage['tokens'] / 1e6:.2f} M",
            f"{stage['seconds'] / 60:.0f}",
        ]
        for name, stage in report.items()
    ]


def main() -> None:
    models = {name.rpartition("/")[2]: ng.load_model(name) for name in EMBEDDED}
    measured = {
        (task, template): measure(models, task, template, limit)
        for (task, template), limit in MEASURED.items()
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        autoescape=False,  # noqa: S701 (Markdown, from our own numbers)
    )
    card = environment.get_template("card.md.jinja").render(
        sections=list(sections(measured)),
        hypothesis_only=f"{100 * hypothesis_only_accuracy(N_INFERENCE_CASES):.1f}",
        languages=LANGUAGES,
        who=list(WHO),
        training=training_rows(),
        groups={name: len(documents) for name, documents in corpus().items()},
        model=models["base"].describe(),
        versions=versions(),
    )
    CARD.parent.mkdir(exist_ok=True)
    CARD.write_text(card.rstrip() + "\n", encoding="utf-8")
    everything = pd.concat(measured.values(), ignore_index=True)
    finest = shares(everything, ["task", "template", "relation", "language", "held_out"])
    finest.round(4).to_csv(CARD.with_suffix(".csv"), index=False)
    print(f"wrote {CARD} and {CARD.with_suffix('.csv')}; accuracy over all prompts:")
    print(shares(everything, ["task", "template", "held_out"]).round(3).to_string())
    assert np.isfinite(finest[list(WHO)].to_numpy(dtype=float)).all()


if __name__ == "__main__":
    main()
