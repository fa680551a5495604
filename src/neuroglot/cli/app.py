"""The commands of ``neuroglot``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import xarray as xr

import neuroglot as ng
from neuroglot.cli import options as o
from neuroglot.cli import show
from neuroglot.cli.parsing import (
    Commands,
    batch_size_of,
    check_page,
    check_table,
    numbers,
    open_recording,
    show_warning,
)
from neuroglot.errors import NeuroglotError, listed
from neuroglot.experiments.evaluation import MAX_NEW_TOKENS
from neuroglot.experiments.pipeline import (
    DEMO_ITEMS,
    PREDICTIONS,
    Answering,
    run_demo,
    run_task,
)
from neuroglot.experiments.predictions import save_predictions
from neuroglot.recording import check_settings
from neuroglot.recording.recorder import Plan
from neuroglot.recording.store import is_result
from neuroglot.report.results import sort_results
from neuroglot.report.tables import HEADLINE_COLUMNS, headline, headline_cells

app = typer.Typer(
    cls=Commands,
    help="Which feed-forward neurons do languages share, and how well does the model answer?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is one line on standard error and exit code 2."""
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        app(args=list(arguments) if arguments is not None else None)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("demo"),
    items: Annotated[int, typer.Option(help="Items of each task.")] = DEMO_ITEMS,
    json: o.Json = False,
) -> None:
    """Run the main job on the embedded models and write a report."""
    began = time.perf_counter()
    check_page(out / "report.html")
    results = run_demo(items)
    seconds = time.perf_counter() - began
    page = ng.report(results, out / "report.html", figures=out / "figures")
    rows = headline(sort_results(results))
    if json:
        show.as_json({"results": rows, "seconds": seconds, "report": str(page.resolve())})
        return
    title = f"facts, {items} items in ten languages"
    show.table(list(HEADLINE_COLUMNS.values()), headline_cells(rows), title)
    typer.echo(f"Analysed in {seconds:.0f} s. The report: {page.resolve()}")


@app.command()
@o.grouped
def run(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("neuroglot-run"),
    score: o.Score = "sum",
    max_new_tokens: o.MaxNewTokens = MAX_NEW_TOKENS,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Record, classify, evaluate and report, in one go. The same command goes on if stopped."""
    check_page(out / "report.html", overwrite=overwrite)
    chosen = which.load(task)
    loaded = how.load(model)
    answering = Answering(score, max_new_tokens)
    done = run_task(loaded, chosen, answering=answering, out=out, overwrite=overwrite)
    page = ng.report(done.results, out / "report.html", figures=out / "figures")
    rows = headline(sort_results(done.results))
    if json:
        show.as_json({"results": rows, "report": str(page)})
        return
    show.table(list(HEADLINE_COLUMNS.values()), headline_cells(rows), f"{model} on {task}")
    if f"{chosen.name}/answers" in done.results:
        answers = done.results[f"{chosen.name}/answers"]
        assert isinstance(answers, xr.Dataset)
        show.rows_as_table(show.accuracy_rows(answers), "Accuracy by language")
        typer.echo(f"Every answer: {(out / PREDICTIONS).resolve()}")
    typer.echo(f"The report: {page.resolve()}")


@app.command()
@o.grouped
def check(
    model: o.ModelName,
    how: o.ModelOptions,
    json: o.Json = False,
) -> None:
    """Load a model, find its feed-forward neurons, verify them, and say what was found."""
    found = how.load(model).describe()
    if json:
        show.as_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key.replace('_', ' '):18} {value if value is not None else '–'}")
    typer.echo("verified: one firing a layer, zeroing changes the logits, removal restores them")


@app.command()
def tasks(json: o.Json = False) -> None:
    """List the tasks that can be named, and the published data behind them."""
    rows = show.task_rows()
    if json:
        show.as_json(rows)
        return
    show.tasks(rows)


@app.command()
@o.grouped
def record(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    out: Annotated[
        Path | None, typer.Option(help="Folder to record into; needed but for --dry-run.")
    ] = None,
    site: o.Site = "gate",
    position: o.Position = "last",
    thresholds: o.Thresholds = "0",
    keep_values: o.KeepValues = False,
    batch_size: o.BatchSize = "auto",
    overwrite: o.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would cost.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Record which neurons are active for each prompt. The same command goes on if stopped."""
    if out is None and not dry_run:
        raise NeuroglotError("name a folder to record into with --out, or pass --dry-run.")
    levels, size = numbers(thresholds), batch_size_of(batch_size)
    chosen = which.load(task)
    loaded = how.load(model)
    if dry_run:
        settings = check_settings(
            loaded,
            site=site,
            position=position,
            thresholds=levels,
            layers=None,
            keep_values=keep_values,
        )
        _print_plan(ng.plan_recording(loaded, chosen, settings, batch_size=size), json=json)
        return
    made = ng.record(
        loaded,
        chosen,
        out,
        site=site,
        position=position,
        thresholds=levels,
        keep_values=keep_values,
        batch_size=size,
        overwrite=overwrite,
    )
    if json:
        show.as_json({"out": str(out), "items": len(made), "provenance": made.attrs})
    else:
        typer.echo(f"{made} is in {out}")


def _print_plan(plan: Plan, *, json: bool) -> None:
    if json:
        show.as_json(asdict(plan))
        return
    typer.echo(
        f"{plan.prompts:,} prompts, {plan.tokens:,} tokens, {plan.stored_bytes / 1e6:,.1f} MB "
        f"before compression, about {plan.seconds:,.0f} s"
    )


@app.command()
def classify(
    recording: o.Stored,
    out: o.Out = None,
    threshold: Annotated[float, typer.Option(help="A neuron is active above this.")] = 0.0,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Put neurons into sharing categories, with the baselines."""
    sharing = ng.classify(open_recording(recording), threshold)
    if out is not None:
        ng.save(sharing, out, overwrite=overwrite)
    rows = show.sharing_rows(sharing)
    if json:
        show.as_json({"categories": rows, "provenance": sharing.attrs})
    else:
        show.rows_as_table(rows, "Share of neurons, mean over items and layers")


@app.command()
@o.grouped
def evaluate(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    out: o.Out = None,
    predictions: Annotated[
        Path | None, typer.Option(help="CSV file for every answer.", metavar="FILE.csv")
    ] = None,
    score: o.Score = "sum",
    max_new_tokens: o.MaxNewTokens = MAX_NEW_TOKENS,
    batch_size: o.BatchSize = "auto",
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Answer every prompt, by choosing or else by writing; accuracy by language."""
    size = batch_size_of(batch_size)
    chosen = which.load(task)
    loaded = how.load(model)
    if predictions is not None:
        check_table(predictions, overwrite=overwrite)
    answers = ng.evaluate(
        loaded,
        chosen,
        out=out,
        score=score,
        max_new_tokens=max_new_tokens,
        batch_size=size,
        overwrite=overwrite,
    )
    if predictions is not None:
        save_predictions(chosen, answers, predictions)
    rows = show.accuracy_rows(answers)
    if json:
        show.as_json({"accuracy": rows, "provenance": answers.attrs})
    else:
        show.rows_as_table(rows, f"{model} on {task}")


@app.command()
@o.grouped
def fragility(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    site: o.Site = "gate",
    position: o.Position = "last",
    threshold: Annotated[float, typer.Option(help="A neuron is active above this.")] = 0.0,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """How many categories change with the batch size, and with the number type."""
    chosen = which.load(task)
    found = ng.fragility(how.load(model), chosen, site=site, position=position, threshold=threshold)
    if out is not None:
        ng.save(found, out, overwrite=overwrite)
    rows = show.fragility_rows(found)
    if json:
        show.as_json({"fragility": rows, "provenance": found.attrs})
        return
    show.rows_as_table(rows, f"{model} on {task}: what depends on rounding")


@app.command()
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RESULT…", help="Folders with saved results.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="Folder for PNG and SVG files.")] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Draw saved results into one HTML page. Results beside each other belong to one run."""
    if out.exists() and not overwrite:
        raise NeuroglotError(f"{str(out)!r} exists; pass --overwrite to replace it.")
    results: dict[str, xr.Dataset | xr.DataArray] = {}
    for path in paths:
        folders = (
            [path] if is_result(path) else [f for f in sorted(path.glob("*/")) if is_result(f)]
        )
        run_name = path.resolve().parent.name if folders == [path] else path.resolve().name
        for folder in folders:
            if folder.name == "recording" and len(folders) > 1:
                continue  # what follows from it lies beside it
            stored = ng.open(folder)
            if isinstance(stored, ng.Recording):
                stored = ng.classify(stored)
            key = f"{run_name}/{folder.name}"
            if key in results:
                raise NeuroglotError(f"{str(folder)!r}: another {key!r} is reported already.")
            results[key] = stored
    if not results:
        raise NeuroglotError(f"no saved result found in {listed(paths)}.")
    typer.echo(f"The report: {ng.report(results, out, figures).resolve()}")
