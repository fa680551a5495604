"""Commands about the contributions of neurons: attribute, agreement and describe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import neuroglot as ng
from neuroglot import defaults
from neuroglot.cli import options as o
from neuroglot.cli import terminal
from neuroglot.cli.parsing import open_evaluation, open_recording, score_names
from neuroglot.errors import NeuroglotError, plain


@o.grouped
def attribute(
    model: o.ModelName,
    task: o.TaskName,
    recording: o.Stored,
    which: o.TaskOptions,
    how: o.ModelOptions,
    scores: o.NeuronScores = o.SCORES,
    target: o.Target = None,
    top_k: Annotated[
        int | None,
        typer.Option(help="Number of top neurons of a layer. Default: 800 of 16,384."),
    ] = None,
    threshold: o.Threshold = 0.0,
    answers: Annotated[
        Path | None,
        typer.Option(help="Folder that `neuroglot evaluate` wrote. Default: answer now."),
    ] = None,
    out: o.Out = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for PNG and SVG files.")] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Add up the scores of neurons by category.

    If it is stopped, the same command goes on. With more items, it adds these to the same folder;
    with another language, it adds up all items again.
    """
    from neuroglot.attribution.by_category import KIND as ATTRIBUTION
    from neuroglot.cli.places import check_figures, check_result
    from neuroglot.reporting.page import save_figures

    wanted = score_names(scores)
    if not wanted:
        raise NeuroglotError("--scores none: there is nothing to attribute.")
    check_result(out, ATTRIBUTION, overwrite=overwrite)
    check_figures(figures)
    recorded = open_recording(recording)
    answered = None if answers is None else open_evaluation(answers)
    chosen = which.load(task)
    attribution = ng.attribute(
        how.load(model),
        chosen,
        recording=recorded,
        scores=wanted,
        top_k=top_k,
        target=target,
        threshold=threshold,
        answers=answered,
        out=out,
        overwrite=overwrite,
    )
    if figures is not None:
        save_figures({str(task): attribution}, figures)
    terminal.result(attribution, f"{model} on {task}", json=json)


@o.grouped
def agreement(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    scores: o.NeuronScores = f"{o.SCORES},gradient_x_activation",
    target: o.Target = None,
    neurons: Annotated[int, typer.Option(help="Number of random neurons of each layer.")] = (
        defaults.TESTED_NEURONS
    ),
    seed: Annotated[int, typer.Option(help="Seed of the choice of neurons.")] = 0,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Compare scores with the effects of zeroing single neurons, on some tens of items.

    If it is stopped, the same command goes on.
    """
    from neuroglot.attribution.agreement import KIND as AGREEMENT
    from neuroglot.cli.places import check_result

    check_result(out, AGREEMENT, overwrite=overwrite)
    wanted, chosen = score_names(scores), which.load(task)
    agreement = ng.causal_agreement(
        how.load(model),
        chosen,
        scores=wanted,
        target=target,
        n_neurons=neurons,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    terminal.result(agreement, f"{model} on {task}", json=json)


@o.grouped
def describe(
    model: o.ModelName,
    layer: Annotated[int, typer.Argument(help="Number of the layer, from 0.", show_default=False)],
    neuron: Annotated[
        int, typer.Argument(help="Number of the neuron in the layer, from 0.", show_default=False)
    ],
    how: o.ModelOptions,
    recording: Annotated[
        Path | None,
        typer.Option(help="Folder that `neuroglot record` wrote, to see when it is active."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of tokens and of prompts.")] = 10,
    json: o.Json = False,
) -> None:
    """Show which tokens a neuron promotes and suppresses, and for which prompts it is active."""
    recorded = None if recording is None else open_recording(recording)
    description = ng.describe(how.load(model), layer=layer, neuron=neuron, recording=recorded, k=k)
    if json:
        terminal.as_json(asdict(description))
        return
    for line in str(description).splitlines():
        terminal.say(plain(line))
