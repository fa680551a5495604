"""Commands that change what neurons do: deactivate, amplify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.answering.answering import Answering
from neuroglot.cli import options as o
from neuroglot.cli import terminal
from neuroglot.cli.parsing import (
    layer_groups,
    numbers,
    open_recording,
)

if TYPE_CHECKING:
    import xarray as xr


Recorded = Annotated[
    Path | None,
    typer.Option(help="What `neuroglot record` wrote. Default: record into the folder of --out."),
]
OutFolder = Annotated[Path, typer.Option(help="Folder for everything.")]


@dataclass(frozen=True)
class ControlOptions:
    """What a category is compared with, and where neurons are edited."""

    controls: Annotated[
        str,
        typer.Option(help="Random neurons: size, active, contribution, with commas; or none."),
    ] = ",".join(defaults.CONTROLS)
    draws: Annotated[int, typer.Option(help="Random sets of each control for a prompt.")] = (
        defaults.DRAWS
    )
    seed: Annotated[int, typer.Option(help="Of draws, halves and resampling.")] = 0
    equivalent_within: o.EquivalentWithin = defaults.EQUIVALENT_WITHIN
    position: Annotated[
        str,
        typer.Option(
            help="Where neurons are edited: answer (last prompt token and answer), last or all."
        ),
    ] = "answer"
    threshold: o.Threshold = 0.0

    def checked(self) -> dict[str, Any]:
        """As keyword arguments of :func:`neuroglot.intervene`, before anything is run."""
        from neuroglot.answering.differences import check_bound
        from neuroglot.interventions.conditions import Controls
        from neuroglot.models.running import check_edit_position

        plain = self.controls.strip()
        kinds = [] if plain == "none" else [kind.strip() for kind in plain.split(",")]
        return {
            "controls": Controls(kinds, self.draws, self.seed, self.threshold),
            "position": check_edit_position(self.position),
            "equivalent_within": check_bound(self.equivalent_within),
        }


@o.grouped
def deactivate(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    beside: ControlOptions,
    answering: Answering,
    out: OutFolder = Path("neuroglot-deactivate"),
    recording: Recorded = None,
    categories: Annotated[
        str,
        typer.Option(help="With commas between; a union with + between, as all_shared+specific."),
    ] = ",".join(defaults.CATEGORIES),
    doses: Annotated[
        str | None,
        typer.Option(help="Only the top shares of each category, as 0.1,0.5,1.", metavar="SHARES"),
    ] = None,
    rank_by: Annotated[
        str,
        typer.Option(help="What --doses ranks by: contribution, or a score that uses the answer."),
    ] = "contribution",
    layers: Annotated[
        str | None,
        typer.Option(help="Only these; several groups with semicolons, as '0-1;2-3;4,5'."),
    ] = None,
    membership: Annotated[
        float | None,
        typer.Option(
            help="One set for all items: neurons in the category for this share of a half of them."
        ),
    ] = None,
    keep_only: Annotated[
        bool, typer.Option("--keep-only", help="Switch off all other neurons instead.")
    ] = False,
    factor: Annotated[
        float, typer.Option(help="Multiply coefficients with this; 0 switches them off.")
    ] = 0.0,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Switch off the neurons of each category, beside random ones, and measure the answers.

    The same command goes on if stopped.
    """
    from neuroglot.cli.places import check_folder
    from neuroglot.interventions import presets
    from neuroglot.interventions.presets import check_categories

    page = out / "report.html"
    check_folder(out, overwrite=overwrite)
    parts = presets.Parts(
        numbers(doses) if doses else (1.0,),
        rank_by,
        layer_groups(layers) if layers else (None,),
        membership,
        keep_only,
        factor,
    )
    names = check_categories([name.strip() for name in categories.split(",")])
    settings = beside.checked()
    recorded = None if recording is None else open_recording(recording)
    chosen, loaded = which.load(task), how.load(model)
    parts.check_fits(loaded)
    if recorded is None:
        recorded = _recorded(loaded, chosen, out, overwrite=overwrite)
    outcome = presets.deactivate(
        loaded,
        chosen,
        recorded,
        categories=names,
        parts=parts,
        **settings,
        answering=answering,
        out=out,
        overwrite=overwrite,
    )
    _show(outcome, f"{model} on {task}", page, json=json)


@o.grouped
def amplify(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    beside: ControlOptions,
    answering: Answering,
    out: OutFolder = Path("neuroglot-amplify"),
    recording: Recorded = None,
    category: Annotated[str, typer.Option(help="Or a union with + between.")] = "all_shared",
    factors: Annotated[
        str, typer.Option(help="To choose from, on a half of the items.")
    ] = ",".join(f"{factor:g}" for factor in defaults.FACTORS),
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Multiply the coefficients of a category, and see whether answers get better.

    The factor is chosen on one half of the items, and what it does is that of the other half.
    The same command goes on if stopped.
    """
    from neuroglot.cli.places import check_folder
    from neuroglot.interventions import presets
    from neuroglot.interventions.presets import check_categories, check_factors

    page = out / "report.html"
    check_folder(out, overwrite=overwrite)
    check_categories([category])
    tried = check_factors(numbers(factors))
    settings = beside.checked()
    recorded = None if recording is None else open_recording(recording)
    chosen, loaded = which.load(task), how.load(model)
    if recorded is None:
        recorded = _recorded(loaded, chosen, out, overwrite=overwrite)
    outcome = presets.amplify(
        loaded,
        chosen,
        recorded,
        category=category,
        factors=tried,
        **settings,
        answering=answering,
        out=out,
        overwrite=overwrite,
    )
    _show(outcome, f"{model} on {task}", page, json=json)


def _recorded(
    model: ng.Model, task: ng.ParallelTask, out: Path, *, overwrite: bool
) -> ng.Recording:
    """What is recorded where no recording was named; it does not grow, as no condition does."""
    folder = out / "recording"
    return ng.record(model, task, out=folder, grow=False, overwrite=overwrite)


def _show(outcome: xr.Dataset, name: str, page: Path, *, json: bool) -> None:
    run = f"{outcome.attrs['model']}, {outcome.attrs['task']}".replace("/", " ")
    report = ng.report(
        {f"{run}/{page.parent.name}": outcome}, out=page, figures=page.parent / "figures"
    )
    terminal.result(outcome, name, json=json, report=report)
