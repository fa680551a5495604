"""Commands about alignment: align a model, and compare models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.alignment.training_settings import METHODS, Training, check_method, check_training
from neuroglot.cli import options as o
from neuroglot.cli import terminal
from neuroglot.cli.parsing import named_path
from neuroglot.errors import NeuroglotError, listed


@o.grouped
def align(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    training: Training,
    method: Annotated[
        str, typer.Option(help=f"{', '.join(METHODS[:-1])} or {METHODS[-1]} (the control).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for all results.")] = Path("neuroglot-align"),
    mask: Annotated[
        Path | None, typer.Option(help="Train only the neurons of this file, a saved NeuronSet.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train and save LoRA adapters; needs peft.")
    ] = False,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Fine-tune a model on parallel texts, and measure how sharing and accuracy change.

    If it is stopped, the same command goes on. The model (or its adapters) is written to OUT/model,
    and the report to OUT/report.html.
    """
    from neuroglot.cli.places import check_alignment

    check_alignment(out, overwrite=overwrite)
    check_training(training, check_method(method))
    neurons = None if mask is None else ng.NeuronSet.load(mask)
    chosen, loaded = which.load(task), how.load(model)
    result = ng.align(
        loaded,
        chosen,
        method=method,
        out=out,
        mask=neurons,
        lora=lora,
        training=training,
        overwrite=overwrite,
    )
    report = ng.report(
        {f"{out.resolve().name}/alignment": result},
        out=out / "report.html",
        figures=out / "figures",
    )
    name = f"{model} on {task}, {method}"
    terminal.result(result, name, json=json, model=out / "model", report=report)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN…",
            help="Folders that `neuroglot run` wrote, or folders in OUT/runs of `neuroglot align`.",
            show_default=False,
        ),
    ],
    x: Annotated[
        str | None,
        typer.Option(
            "-x", "--x", help="The series that the runs form, such as step; names hold its number."
        ),
    ] = None,
    threshold: o.Threshold = 0.0,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="All models continue one checkpoint: show the flow.")
    ] = False,
    unrelated: Annotated[
        bool,
        typer.Option(
            "--unrelated",
            help="Compare models that differ in more than weights: architecture, tokenizer, …",
        ),
    ] = False,
    equivalent_within: o.EquivalentWithin = defaults.EQUIVALENT_WITHIN,
    seed: Annotated[int, typer.Option(help="Seed of the resampling.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for the result, the figures and a report.")
    ] = Path("neuroglot-compare"),
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Compare models or checkpoints on a task with the first of them."""
    from neuroglot.cli.places import check_folder

    check_folder(out, overwrite=overwrite)
    compared = ng.compare(
        _named(runs),
        x=x,
        threshold=threshold,
        lineage=lineage,
        unrelated=unrelated,
        equivalent_within=equivalent_within,
        seed=seed,
    )
    # It is computed from the runs in no time, so an earlier comparison is replaced.
    ng.save(compared, out / "comparison", overwrite=overwrite or _is_comparison(out))
    report = ng.report(
        {f"{out.resolve().name}/comparison": compared},
        out=out / "report.html",
        figures=out / "figures",
    )
    terminal.result(compared, str(compared.attrs["task"]), json=json, report=report)


def _named(runs: list[str]) -> dict[str, Path] | list[Path]:
    """The paths of runs, by name if any run is named."""
    given_names, paths = zip(*map(named_path, runs), strict=True)
    if not any(given_names):
        return list(paths)
    names = [name or path.resolve().name for name, path in zip(given_names, paths, strict=True)]
    if len(set(names)) < len(names):
        raise NeuroglotError(f"expected different names of runs, found {listed(names)}.")
    return dict(zip(names, paths, strict=True))


def _is_comparison(out: Path) -> bool:
    """Whether the folder holds a comparison."""
    import xarray as xr

    try:
        stored = ng.load(out / "comparison")
    except NeuroglotError:
        return False
    return isinstance(stored, xr.Dataset) and stored.attrs.get("kind") == "comparison"
