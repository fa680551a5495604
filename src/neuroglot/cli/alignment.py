"""Commands about alignment: compare models, and change one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.alignment.training_settings import METHODS, Training, check_method, check_training
from neuroglot.cli import options as o
from neuroglot.cli import terminal
from neuroglot.cli.parsing import language_codes, named_path
from neuroglot.errors import NeuroglotError, listed

DEFAULT = Training()


@dataclass(frozen=True)
class TrainingOptions:
    """For how long and on what a model is trained."""

    steps: Annotated[int, typer.Option(help="Of the optimiser.")] = DEFAULT.steps
    pairs: Annotated[int, typer.Option(help="Of texts in a step.")] = DEFAULT.pairs
    learning_rate: Annotated[
        float | None, typer.Option(help="At its peak. Default: 5e-5; for LoRA 2e-4.")
    ] = None
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16 (autocast).")] = False
    train_languages: Annotated[
        str | None,
        typer.Option(help="Only these are trained, the others held out. Default: all."),
    ] = None
    held_out: Annotated[float, typer.Option(help="Share of the items that are not trained.")] = (
        DEFAULT.held_out
    )
    mismatched: Annotated[
        bool, typer.Option("--mismatched", help="The control: pair each text with another item's.")
    ] = False
    sharing_weight: Annotated[
        float, typer.Option(help="Of the term of sharing beside the loss.")
    ] = DEFAULT.sharing_weight
    rate_weight: Annotated[
        float, typer.Option(help="Of what keeps rates of activity, in that term.")
    ] = DEFAULT.rate_weight
    lora_rank: Annotated[int, typer.Option(help="Of the adapters.")] = DEFAULT.lora_rank
    checks: Annotated[int, typer.Option(help="How often accuracy and sharing are measured.")] = (
        DEFAULT.checks
    )
    checked_items: Annotated[
        int, typer.Option(help="The most items for that, trained and held out each.")
    ] = DEFAULT.checked_items
    seed: Annotated[int, typer.Option(help="Of split, order and training.")] = DEFAULT.seed

    def training(self) -> Training:
        """As :func:`neuroglot.align` takes it."""
        codes = language_codes(self.train_languages)
        return Training(
            steps=self.steps,
            pairs=self.pairs,
            learning_rate=self.learning_rate,
            bf16=self.bf16,
            languages=None if codes is None else tuple(codes),
            held_out=self.held_out,
            mismatched=self.mismatched,
            sharing_weight=self.sharing_weight,
            rate_weight=self.rate_weight,
            lora_rank=self.lora_rank,
            checks=self.checks,
            checked_items=self.checked_items,
            seed=self.seed,
        )


@o.grouped
def align(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    settings: TrainingOptions,
    method: Annotated[
        str, typer.Option(help=f"{', '.join(METHODS[:-1])} or {METHODS[-1]} (the control).")
    ],
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("neuroglot-align"),
    mask: Annotated[
        Path | None, typer.Option(help="Train only these neurons: a file of a NeuronSet.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train adapters, and save those; needs peft.")
    ] = False,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Fine-tune a model on parallel texts, and see whether sharing and accuracy rise.

    The same command goes on if stopped. The model (or its adapters) is written to OUT/model, and
    what was measured to OUT/report.html.
    """
    from neuroglot.cli.places import check_alignment

    page = out / "report.html"
    check_alignment(out, overwrite=overwrite)
    training = settings.training()
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
        {f"{out.resolve().name}/alignment": result}, out=page, figures=out / "figures"
    )
    name = f"{model} on {task}, {method}"
    terminal.result(result, name, json=json, model=out / "model", report=report)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN…",
            help="Folders that `neuroglot run` wrote, or those in OUT/runs of `neuroglot align`.",
            show_default=False,
        ),
    ],
    x: Annotated[
        str | None,
        typer.Option(
            "-x", "--x", help="What the runs are a series of, as step; names hold its number."
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="A neuron is active above this.")] = 0.0,
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
    seed: Annotated[int, typer.Option(help="Of the exchanges.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for the result, the figures and a report.")
    ] = Path("neuroglot-compare"),
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Compare two models on a task, or a series of checkpoints, with the first of them."""
    from neuroglot.cli.places import check_folder

    page = out / "report.html"
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
    # What follows from the runs alone takes no time, so the folder's own result is replaced.
    ng.save(compared, out / "comparison", overwrite=overwrite or _is_comparison(out))
    report = ng.report(
        {f"{out.resolve().name}/comparison": compared}, out=page, figures=out / "figures"
    )
    terminal.result(compared, str(compared.attrs["task"]), json=json, report=report)


def _named(runs: list[str]) -> dict[str, Path] | list[Path]:
    """Runs by name where any is named."""
    found = [named_path(run) for run in runs]
    if not any(name for name, _ in found):
        return [path for _, path in found]
    names = [name or path.resolve().name for name, path in found]
    if len(set(names)) < len(names):
        raise NeuroglotError(f"expected different names of runs, found {listed(names)}.")
    return dict(zip(names, (path for _, path in found), strict=True))


def _is_comparison(out: Path) -> bool:
    """Whether the folder holds a comparison, which may be replaced."""
    import xarray as xr

    try:
        stored = ng.load(out / "comparison")
    except NeuroglotError:
        return False
    return isinstance(stored, xr.Dataset) and stored.attrs.get("kind") == "comparison"
