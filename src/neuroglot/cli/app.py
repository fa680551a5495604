"""The commands of ``neuroglot``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.answering.answering import Answering
from neuroglot.cli import alignment, interventions, neurons, steps, terminal
from neuroglot.cli import options as o
from neuroglot.cli.parsing import (
    Commands,
    score_names,
    warnings_as_lines,
)
from neuroglot.cli.streams import enduring_streams
from neuroglot.recording.reading import Reading

YES_OR_NO = ("norm_after_ffn", "special_tokens", "truncate")  # facts that are true or false

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input gives one line on standard error and exit code 2.

    If standard output cannot be written to, the work is still done, and the exit code is 1, or 141
    for a closed pipe.
    """
    with enduring_streams(), warnings_as_lines():
        app(args=list(arguments) if arguments is not None else None)


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"neuroglot {ng.__version__}")
        raise typer.Exit


@app.callback()
def neuroglot(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Which feed-forward neurons do languages share, and how well does the model answer?"""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
    items: Annotated[int, typer.Option(help="Items of each task.")] = defaults.DEMO_ITEMS,
    json: o.Json = False,
) -> None:
    """Run the main job on the embedded models and write a report."""
    from neuroglot.cli.places import check_folder
    from neuroglot.pipeline import run_demo
    from neuroglot.reporting.gathering import sample_notes, sort_results
    from neuroglot.reporting.headline import headline_table
    from neuroglot.reporting.kinds.attribution import score_table

    began = time.perf_counter()
    check_folder(out)
    results = run_demo(items)
    seconds = time.perf_counter() - began
    page = ng.report(results, out=out / "report.html", figures=out / "figures")
    gathered = sort_results(results)
    overall = headline_table(gathered, f"facts, {items} items in ten languages")
    scores, notes = score_table(gathered["attribution"]), sample_notes(gathered)
    if json:
        printed = {"results": overall.records(), "scores": scores.records(), "seconds": seconds}
        terminal.as_json(printed | {"notes": notes, "report": str(page.resolve())})
        return
    terminal.show([overall, scores])
    terminal.notes(notes)
    terminal.say(f"Analysed in {seconds:.0f} s. The report: {page.resolve()}")


@app.command()
@o.grouped
def run(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    reading: Annotated[Reading, o.Only(("site", "position", "added_tokens"))],
    answering: Answering,
    out: Annotated[Path, typer.Option(help="Folder for all results.")] = Path("neuroglot-run"),
    scores: o.NeuronScores = o.SCORES,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Record, classify, evaluate, attribute and report.

    If it is stopped, the same command goes on. With more items or languages, it adds these to the
    same folder; nothing else may differ.
    """
    from neuroglot.cli.places import check_folder
    from neuroglot.pipeline import PREDICTIONS, THRESHOLDS
    from neuroglot.reporting.gathering import in_page_order, sample_notes, sort_results
    from neuroglot.reporting.headline import headline_table

    check_folder(out, overwrite=overwrite)
    wanted, read = score_names(scores), replace(reading, thresholds=THRESHOLDS)
    chosen = which.load(task)
    done = ng.run(
        how.load(model),
        chosen,
        reading=read,
        answering=answering,
        scores=wanted,
        out=out,
        overwrite=overwrite,
    )
    page = ng.report(done.results, out=out / "report.html", figures=out / "figures")
    gathered = sort_results(done.results)
    overall, notes = headline_table(gathered, f"{model} on {task}"), sample_notes(gathered)
    if json:
        terminal.as_json({"results": overall.records(), "notes": notes, "report": str(page)})
        return
    parts = [kind.tables(runs) for kind, _, runs in in_page_order(gathered)]
    terminal.show([overall, *itertools.chain(*parts)])
    terminal.notes(notes)
    if "evaluation" in gathered:
        terminal.say(f"Every answer: {(out / PREDICTIONS).resolve()}")
    terminal.say(f"The report: {page.resolve()}")


@app.command()
@o.grouped
def check(
    model: o.ModelName,
    how: o.ModelOptions,
    json: o.Json = False,
) -> None:
    """Load a model, find and verify its feed-forward neurons, and describe it."""
    facts = how.load(model).describe()
    if json:
        terminal.as_json(facts)
        return
    for key, value in facts.items():
        text = "–" if value is None or value == "" else str(value)
        if key in YES_OR_NO:
            text = "yes" if value else "no"
        terminal.say(f"{key.replace('_', ' '):18} {text}", indent=19)
    terminal.say(
        "verified: each layer ran once, zeroing its neurons changed the logits, and without edits "
        "they were as before"
    )


@app.command()
def tasks(json: o.Json = False) -> None:
    """List the tasks that can be named, and the published data behind them."""
    rows = _task_rows()
    if json:
        terminal.as_json(rows)
        return
    for row in rows:
        terminal.say(f"{row['task']:15} {row['summary']}", indent=16)
        if "licence" in row:
            languages = f"{' '.join(row['languages'])}; licence: {row['licence']}"
            terminal.say(f"{'':15} {languages}", indent=16)
            terminal.say(f"{'':15} {row['citation']}", indent=16)


def _task_rows() -> list[dict[str, Any]]:
    """A dictionary for each task of the catalogue."""
    from neuroglot.tasks.catalogue import catalogue

    rows = []
    for entry in catalogue().values():
        row: dict[str, Any] = {"task": entry.name, "summary": entry.summary}
        if entry.dataset is not None:
            fields = ("languages", "revision", "licence", "citation")
            row |= {field: getattr(entry.dataset, field) for field in fields}
            row["hub"] = entry.dataset.hub.get("address", entry.dataset.hub["path"])
        rows.append(row)
    return rows


for step in (
    steps.record,
    steps.classify,
    steps.evaluate,
    neurons.attribute,
    neurons.agreement,
    neurons.describe,
    interventions.deactivate,
    interventions.amplify,
    alignment.compare,
    alignment.align,
    steps.fragility,
    steps.report,
):
    app.command()(step)
