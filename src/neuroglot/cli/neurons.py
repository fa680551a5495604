"""Commands about what neurons contribute: attribute, agreement, describe."""

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
        typer.Option(help="Neurons of a layer that are its top. Default: 800 of 16,384."),
    ] = None,
    threshold: o.Threshold = 0.0,
    answers: Annotated[
        Path | None,
        typer.Option(help="What `neuroglot evaluate --out` wrote. Default: answer here."),
    ] = None,
    out: o.Out = None,
    figures: Annotated[Path | None, typer.Option(help="Folder for PNG and SVG files.")] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Add up the scores of neurons by category. The same command goes on if stopped.

    With more items in the same folder it adds these; with another language it adds up all again.
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
    found = ng.attribute(
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
        save_figures({str(task): found}, figures)
    terminal.result(found, f"{model} on {task}", json=json)


@o.grouped
def agreement(
    model: o.ModelName,
    task: o.TaskName,
    which: o.TaskOptions,
    how: o.ModelOptions,
    scores: o.NeuronScores = f"{o.SCORES},gradient_x_activation",
    target: o.Target = None,
    neurons: Annotated[int, typer.Option(help="Random neurons of each layer.")] = (
        defaults.TESTED_NEURONS
    ),
    seed: Annotated[int, typer.Option(help="Of the random neurons.")] = 0,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Hold scores against what zeroing single neurons does; give it some tens of items.

    The same command goes on if stopped.
    """
    from neuroglot.attribution.agreement import KIND as AGREEMENT
    from neuroglot.cli.places import check_result

    check_result(out, AGREEMENT, overwrite=overwrite)
    wanted, chosen = score_names(scores), which.load(task)
    found = ng.causal_agreement(
        how.load(model),
        chosen,
        scores=wanted,
        target=target,
        n_neurons=neurons,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    terminal.result(found, f"{model} on {task}", json=json)


@o.grouped
def describe(
    model: o.ModelName,
    layer: Annotated[int, typer.Argument(help="From 0.", show_default=False)],
    neuron: Annotated[int, typer.Argument(help="From 0.", show_default=False)],
    how: o.ModelOptions,
    recording: Annotated[
        Path | None, typer.Option(help="What `neuroglot record` wrote; when it is active.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many tokens and prompts.")] = 10,
    json: o.Json = False,
) -> None:
    """Which tokens a neuron promotes and suppresses, and when it is active."""
    recorded = None if recording is None else open_recording(recording)
    found = ng.describe(how.load(model), layer=layer, neuron=neuron, recording=recorded, k=k)
    if json:
        terminal.as_json(asdict(found))
        return
    for line in str(found).splitlines():
        terminal.say(plain(line))
