"""One step at a time: record, classify, evaluate, fragility, report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
import xarray as xr

import neuroglot as ng
from neuroglot.cli import options as o
from neuroglot.cli import show
from neuroglot.cli.parsing import batch_size_of, check_table, numbers, open_recording
from neuroglot.errors import NeuroglotError, listed
from neuroglot.experiments.evaluation import MAX_NEW_TOKENS
from neuroglot.experiments.predictions import save_predictions
from neuroglot.recording import check_settings
from neuroglot.recording.recorder import Plan
from neuroglot.recording.store import is_result


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
