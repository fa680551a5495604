"""Commands for single steps: record, classify, evaluate, fragility and report."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import neuroglot as ng
from neuroglot.answering.answering import Answering
from neuroglot.cli import options as o
from neuroglot.cli import terminal
from neuroglot.cli.parsing import (
    open_recording,
    results_at,
)
from neuroglot.errors import NeuroglotError
from neuroglot.outputs import real_path
from neuroglot.recording.reading import Reading

if TYPE_CHECKING:
    import xarray as xr


@o.grouped
def record(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    reading: Reading,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the recording; required except with --dry-run."),
    ] = None,
    overwrite: o.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate size and duration.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Record which neurons are active for each prompt.

    If it is stopped, the same command goes on. With more items or languages, it adds these to the
    same folder.
    """
    from neuroglot.cli.places import check_result

    if out is None and not dry_run:
        raise NeuroglotError("name a folder to record into with --out, or pass --dry-run.")
    if not dry_run:
        check_result(out, "recording", overwrite=overwrite)
    chosen, loaded = which.load(task), how.load(model)
    if dry_run:
        _print_plan(loaded, chosen, reading, json=json)
        return
    recording = ng.record(loaded, chosen, reading=reading, out=out, overwrite=overwrite)
    if json:
        terminal.as_json({"out": str(out), "items": len(recording), "provenance": recording.attrs})
    else:
        terminal.say(f"{recording} is in {out}")


def _print_plan(model: ng.Model, task: ng.ParallelTask, reading: Reading, *, json: bool) -> None:
    """Print the size and duration of a recording."""
    plan = ng.plan_recording(model, task, reading=reading)
    if json:
        terminal.as_json(asdict(plan))
        return
    terminal.say(
        f"{plan.prompts:,} prompts, {plan.tokens:,} tokens, {plan.stored_bytes / 1e6:,.1f} MB, "
        f"about {plan.seconds:,.0f} s"
    )


def classify(
    recording: o.Stored,
    out: o.Out = None,
    threshold: o.Threshold = 0.0,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Put neurons into sharing categories, and compare with the baselines."""
    from neuroglot.cli.places import check_result
    from neuroglot.store.results import is_saved

    check_result(out, "sharing", overwrite=overwrite)
    sharing = ng.classify(open_recording(recording), threshold=threshold)
    if out is not None and (overwrite or not is_saved(sharing, real_path(out))):
        ng.save(sharing, out, overwrite=overwrite)
    terminal.result(sharing, None, json=json)


@o.grouped
def evaluate(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    answering: Answering,
    out: o.Out = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="CSV file for all answers; the same command with --out may replace it.",
            metavar="FILE.csv",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Answer every prompt, by choosing or by writing, and show accuracy by language.

    If it is stopped, the same command with --out goes on. With more items or languages, it adds
    these to the same folder.
    """
    from neuroglot.answering.predictions import save_predictions
    from neuroglot.cli.places import check_predictions, check_result, check_table

    check_result(out, "evaluation", overwrite=overwrite)
    check_table(predictions)
    chosen = which.load(task)
    check_predictions(predictions, chosen, out, overwrite=overwrite)
    loaded = how.load(model)
    answers = ng.evaluate(loaded, chosen, answering=answering, out=out, overwrite=overwrite)
    if predictions is not None:
        save_predictions(chosen, answers, predictions)
    terminal.result(answers, f"{model} on {task}", json=json)


@o.grouped
def fragility(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    reading: Annotated[Reading, o.Only(("site", "position"))],
    threshold: o.Threshold = 0.0,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Count the categories that change with the batch size and with the number type.

    If it is stopped, the same command goes on.
    """
    from neuroglot.cli.places import check_result

    check_result(out, "fragility", overwrite=overwrite)
    chosen = which.load(task)
    flips = ng.fragility(
        how.load(model),
        chosen,
        reading=replace(reading, thresholds=threshold),
        out=out,
        overwrite=overwrite,
    )
    terminal.result(flips, f"{model} on {task}", json=json)


def report(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN=]PATH…",
            help="Folders with saved results; RUN names their run, by default as the folder.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="File of the page.")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="Folder for PNG and SVG files.")] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Show saved results in one HTML page. Results in one folder belong to one run."""
    from neuroglot.cli.places import check_figures, check_new_page, check_same_page

    check_new_page(out, overwrite=overwrite)
    check_figures(figures)
    results: dict[str, xr.Dataset | xr.DataArray] = {}
    for path in paths:
        for name, result in results_at(path).items():
            if name in results:
                raise NeuroglotError(
                    f"{path!r}: another {name!r} is reported already; name its run, RUN={path}."
                )
            results[name] = result
    check_same_page(out, results, overwrite=overwrite)
    terminal.say(f"The report: {ng.report(results, out=out, figures=figures).resolve()}")
