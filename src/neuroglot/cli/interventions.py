"""Commands that edit neurons: deactivate and amplify."""

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
    typer.Option(help="Folder that `neuroglot record` wrote. Default: record into --out."),
]
OutFolder = Annotated[Path, typer.Option(help="Folder for all results.")]


@dataclass(frozen=True)
class ControlOptions:
    """The controls of an intervention, the tokens at which it edits, and its statistics."""

    controls: Annotated[
        str,
        typer.Option(help="Random neurons: size, active and contribution, or none."),
    ] = ",".join(defaults.CONTROLS)
    draws: Annotated[int, typer.Option(help="Random sets of each control for a prompt.")] = (
        defaults.DRAWS
    )
    seed: Annotated[int, typer.Option(help="Seed of draws, halves and resampling.")] = 0
    equivalent_within: o.EquivalentWithin = defaults.EQUIVALENT_WITHIN
    position: Annotated[
        str,
        typer.Option(
            help="Tokens at which neurons are edited: answer (the last prompt token and the "
            "answer), last or all."
        ),
    ] = "answer"
    threshold: o.Threshold = 0.0

    def checked(self) -> dict[str, Any]:
        """The options as keyword arguments of :func:`neuroglot.intervene`, checked."""
        from neuroglot.answering.differences import check_bound
        from neuroglot.interventions.controls import Controls
        from neuroglot.models.running import check_edit_position

        names = [name.strip() for name in self.controls.split(",")]
        kinds = [] if names == ["none"] else names
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
        typer.Option(help="Categories or unions of them, such as all_shared+specific."),
    ] = ",".join(defaults.CATEGORIES),
    doses: Annotated[
        str | None,
        typer.Option(
            help="Only the strongest shares of each category, such as 0.1,0.5,1.", metavar="SHARES"
        ),
    ] = None,
    rank_by: Annotated[
        str,
        typer.Option(help="Score that --doses ranks by: contribution, or one of the answer."),
    ] = "contribution",
    layers: Annotated[
        str | None,
        typer.Option(help="Only these layers, or groups of layers such as '0-1;2-3;4,5'."),
    ] = None,
    membership: Annotated[
        float | None,
        typer.Option(
            help="Edit one set in all items: the neurons that are in the category for this share "
            "of the items of a half."
        ),
    ] = None,
    keep_only: Annotated[
        bool, typer.Option("--keep-only", help="Switch off all other neurons instead.")
    ] = False,
    factor: Annotated[
        float, typer.Option(help="Factor of the coefficients; 0 switches neurons off.")
    ] = 0.0,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Switch off the neurons of each category, and random neurons, and measure the answers.

    If it is stopped, the same command goes on.
    """
    from neuroglot.cli.places import check_folder
    from neuroglot.interventions import presets
    from neuroglot.interventions.presets import check_categories

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
        recorded = ng.record(loaded, chosen, out=out / "recording", grow=False, overwrite=overwrite)
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
    _show(outcome, f"{model} on {task}", out, json=json)


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
    category: Annotated[
        str, typer.Option(help="A category, or a union such as all_shared+specific.")
    ] = "all_shared",
    factors: Annotated[
        str, typer.Option(help="Factors, of which one is chosen on a half of the items.")
    ] = ",".join(f"{factor:g}" for factor in defaults.FACTORS),
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Multiply the coefficients of a category's neurons, and measure the answers.

    The factor is chosen on one half of the items, and its effect is measured on the other half. If
    it is stopped, the same command goes on.
    """
    from neuroglot.cli.places import check_folder
    from neuroglot.interventions import presets
    from neuroglot.interventions.presets import check_categories, check_factors

    check_folder(out, overwrite=overwrite)
    check_categories([category])
    tried = check_factors(numbers(factors))
    settings = beside.checked()
    recorded = None if recording is None else open_recording(recording)
    chosen, loaded = which.load(task), how.load(model)
    if recorded is None:
        recorded = ng.record(loaded, chosen, out=out / "recording", grow=False, overwrite=overwrite)
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
    _show(outcome, f"{model} on {task}", out, json=json)


def _show(outcome: xr.Dataset, name: str, out: Path, *, json: bool) -> None:
    """Write the report of an outcome into the folder, and print the outcome."""
    run = f"{outcome.attrs['model']}, {outcome.attrs['task']}".replace("/", " ")
    report = ng.report(
        {f"{run}/{out.name}": outcome}, out=out / "report.html", figures=out / "figures"
    )
    terminal.result(outcome, name, json=json, report=report)
