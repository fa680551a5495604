"""What the categories do: switch their neurons off, beside controls, and measure the answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import xarray as xr

from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.experiments.differences import EQUIVALENT_WITHIN
from neuroglot.experiments.evaluation import MAX_NEW_TOKENS
from neuroglot.interventions.conditions import (
    CONTROLS,
    DEFAULT_CATEGORIES,
    Variant,
    check_category,
    check_variant,
)
from neuroglot.interventions.job import answering, check_controls, job_of
from neuroglot.interventions.outcome import outcome_of
from neuroglot.models import Model, operation
from neuroglot.neurons.neuron_set import UNION
from neuroglot.recording import Recording
from neuroglot.recording.batching import BatchSize
from neuroglot.recording.store import save
from neuroglot.tasks import ParallelTask

EVERYTHING = (Variant(),)
DOSES = (0.1, 0.25, 0.5, 0.75, 1.0)


@operation
def deactivate(  # noqa: PLR0913 (the public contract)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    categories: Sequence[str] = DEFAULT_CATEGORIES,
    controls: Sequence[str] = CONTROLS,
    draws: int = 5,
    seed: int = 0,
    equivalent_within: float = EQUIVALENT_WITHIN,
    variants: Sequence[Variant] = EVERYTHING,
    positions: str = "answer",
    threshold: float = 0.0,
    score: str = "sum",
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: BatchSize = "auto",
    out: str | Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Switch off the neurons of each category, item by item, and measure the answers.

    A category's neurons are those of the item that is asked, so they differ from prompt to prompt.
    Beside them stand random neurons, drawn anew for every prompt, as many in each layer. All-shared
    neurons are active by definition and most random ones are not; so claims rest on the controls
    ``"active"`` and ``"contribution"``.

    Args:
        model: the one that was recorded.
        task: the one that was recorded; its items need answers.
        recording: from :func:`neuroglot.record`, of all layers; its items and languages count.
        categories: of ``"all_shared"``, ``"partial_shared"``, ``"specific"`` (to any language),
            ``"specific_here"`` (to the language of the prompt) and ``"non_activated"``, or unions
            such as ``"all_shared+partial_shared"``.
        controls: of ``"size"`` (any neurons outside the category), ``"active"`` (active in the
            prompt) and ``"contribution"`` (active, and as many of each decile of ``|m|·‖v‖`` in
            the layer).
        draws: random sets of each control for every prompt.
        seed: of the draws, the halves, the resampling and the exchanges.
        equivalent_within: the bounds of equivalence, which are to be chosen beforehand: an accuracy
            that differs by less than this, either way, counts as the same.
        variants: which parts of the categories are edited, and how; each with each category. See
            :func:`neuroglot.doses` and :func:`neuroglot.layer_bands`.
        positions: see :func:`neuroglot.edit`.
        threshold: a neuron was active where its site value was greater.
        score: see :func:`neuroglot.evaluate`.
        max_new_tokens: see :func:`neuroglot.evaluate`.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        out: folder for the result and what it is made of. Finished conditions there are kept, an
            unfinished one goes on where it stopped. Its ``deactivation`` (or ``dose-response``,
            ``layer-bands``, …, by what the variants differ in) is the result of the last call.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset over ``condition`` (each category in each variant, which its coordinates
        ``category``, ``layers``, ``top``, … say), with ``against`` being ``no_edit`` and the
        controls:

        - ``difference`` (condition, against): accuracy less that of what it is held against, over
          the prompts that have both, equal prompts once; with ``difference_low`` and
          ``difference_high`` (95 %) and ``p``, both by exchanges of whole subjects;
          ``p_equivalent``, of a difference beyond ``equivalent_within``; ``n_prompts`` and
          ``n_subjects``. NaN with fewer than ten subjects, and no interval where fewer than five
          differ or all differ by the same;
        - ``p_holm`` and ``p_equivalent_holm``: corrected for all of them (Holm 1979);
        - ``verdict``: ``"difference"`` if ``p_holm`` is below .05, else ``"equivalent"`` if
          ``p_equivalent_holm`` is, else ``"too few items to tell"``; and ``sufficient_subjects``,
          about how many would tell a difference of ``equivalent_within`` from none, after
          correction, if they vary as these do;
        - ``difference_low_over_relations``, ``difference_high_over_relations``,
          ``p_over_relations``, ``n_relations``: the wider claim, for other relations, if all items
          have a relation and there are at least ten;
        - the same as ``…_by_language`` (condition, against, language). Against no edit, and where
          each subject has one prompt of the language, ``p`` is that of the mid-p McNemar test;
        - ``placebo_difference`` (condition, control) with ``…_low``, ``…_high``, ``placebo_p`` and
          ``placebo_p_holm``: the first draw of a control, in the place of the condition, less the
          other draws. As it is drawn like them, it should differ by nothing. NaN with one draw;
        - ``reason`` (condition, against): why a difference is not known, or not of all prompts;
        - ``accuracy`` (condition, language), ``accuracy_no_edit`` (language) and
          ``accuracy_control`` (condition, control, language), each with its ends;
        - ``correct`` (condition, item, language), ``correct_no_edit`` (item, language) and
          ``correct_control`` (condition, control, draw, item, language; NaN where the pool of a
          control was too small);
        - ``share`` (condition): the neurons' mean share of all contributions; ``share_beside`` and
          ``control_share`` (condition, control): theirs and the control's, over the prompts for
          which there is such a control; ``n_neurons`` (condition, item, language). Under
          ``keep_only`` these are the neurons that are kept;
        - ``counted`` and ``same_tokens_as`` (item, language; see :func:`neuroglot.evaluate`),
          ``subject`` and ``relation`` (item).

    Raises:
        NeuroglotError: bad settings, or a recording of another model or task.
    """
    job = job_of(
        model,
        task,
        recording,
        controls=check_controls(controls, draws, seed, equivalent_within),
        how=answering(positions, score, max_new_tokens, batch_size),
        threshold=threshold,
        out=out,
        overwrite=overwrite,
    )
    names = check_categories(categories)
    check_variants(variants, model)
    wanted = [(name, variant) for variant in variants for name in names]
    outcome = outcome_of(job, wanted)
    if job.out is not None:
        save(outcome, job.out / outcome.attrs["unit"], overwrite=True)
    return outcome


def check_categories(categories: Sequence[str]) -> list[str]:
    """The categories, the parts of unions in one order, if they are such.

    Raises:
        NeuroglotError: a text in place of a list, none, an unknown one, or one twice.
    """
    if isinstance(categories, str) or not isinstance(categories, Iterable):
        raise NeuroglotError(f"categories={categories!r}: expected a list of names.")
    names = [UNION.join(check_category(category)) for category in categories]
    if not names or len(set(names)) < len(names):
        raise NeuroglotError(f"categories={listed(names) or 'none'}: expected different ones.")
    return names


def check_variants(variants: Sequence[Variant], model: Model) -> None:
    """Refuse variants that cannot be.

    Raises:
        NeuroglotError: none, one twice, or see :func:`check_variant`.
    """
    given = variants if isinstance(variants, Sequence) else [variants]
    for variant in given:
        if not isinstance(variant, Variant) or given is not variants:
            raise NeuroglotError(
                f"variants: found a {type(variant).__name__}; expected a list of ng.Variant."
            )
        check_variant(variant, model)
    if not given or len(set(given)) < len(given):
        raise NeuroglotError("variants: expected at least one, and each once.")


def doses(*shares: float, rank_by: str = "contribution") -> tuple[Variant, ...]:
    """Variants for a dose–response curve: only the top shares of a category.

    Args:
        shares: of the category's neurons in each layer; by default a tenth to all.
        rank_by: what they are ranked by, see :class:`Variant`.
    """
    wanted = shares or DOSES
    return tuple(Variant(top=share, rank_by=rank_by) for share in wanted)


def layer_bands(model: Model, n_bands: int = 3) -> tuple[Variant, ...]:
    """Variants for some of the layers: as many bands of neighbours, about equally wide.

    Raises:
        NeuroglotError: more bands than the model has layers, or fewer than one.
    """
    if not is_whole_number(n_bands, 1, model.n_layers):
        raise NeuroglotError(
            f"n_bands={n_bands}: expected a whole number from 1 to {model.n_layers}, the layers."
        )
    ends = [round(i * model.n_layers / n_bands) for i in range(n_bands + 1)]
    return tuple(Variant(layers=tuple(range(*pair))) for pair in itertools.pairwise(ends))
