"""What the categories do: switch their neurons off, beside controls, and measure the answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from neuroglot.attribution.neuron_scores import SCORES
from neuroglot.errors import NeuroglotError, is_whole_number, listed
from neuroglot.experiments.evaluation import MAX_NEW_TOKENS, check_answering
from neuroglot.interventions.answering import Answering
from neuroglot.interventions.conditions import (
    CONTROLS,
    DEFAULT_CATEGORIES,
    Variant,
    check_category,
    check_variant,
)
from neuroglot.interventions.job import check_controls, job_of
from neuroglot.interventions.outcome import outcome_of
from neuroglot.models import Model
from neuroglot.models.running import check_positions
from neuroglot.recording import Recording
from neuroglot.recording.batching import BatchSize
from neuroglot.recording.store import save
from neuroglot.tasks import ParallelTask

EVERYTHING = (Variant(),)
DOSES = (0.1, 0.25, 0.5, 0.75, 1.0)


def deactivate(  # noqa: PLR0913 (the public contract)
    model: Model,
    task: ParallelTask,
    recording: Recording,
    *,
    categories: Sequence[str] = DEFAULT_CATEGORIES,
    controls: Sequence[str] = CONTROLS,
    draws: int = 5,
    seed: int = 0,
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
        seed: of the draws, the halves and the resampling.
        variants: which parts of the categories are edited, and how; each with each category. See
            :func:`neuroglot.doses` and :func:`neuroglot.layer_bands`.
        positions: see :func:`neuroglot.edit`.
        threshold: a neuron was active where its site value was greater.
        score: see :func:`neuroglot.evaluate`.
        max_new_tokens: see :func:`neuroglot.evaluate`.
        batch_size: prompts in a batch; ``"auto"`` fills a budget of tokens.
        out: folder for the result and what it is made of. Finished conditions there are kept, an
            unfinished one goes on where it stopped.
        overwrite: replace what ``out`` holds.

    Returns:
        A dataset over ``condition`` (each category in each variant, which its coordinates
        ``category``, ``layers``, ``top``, … say), with ``against`` being ``no_edit`` and the
        controls:

        - ``difference`` (condition, against): accuracy less that of what it is held against, over
          the prompts that have both; ``difference_low``, ``difference_high`` (95 % bootstrap over
          subjects), ``p`` (sign flips of subjects), ``p_holm`` (corrected for all of them),
          ``n_prompts``, ``n_subjects``. NaN with fewer than ten subjects;
        - the same as ``…_by_language`` (condition, against, language); there ``p`` against no edit
          is McNemar's, exact;
        - ``reason`` (condition, against): why a difference is not known, or not of all prompts;
        - ``accuracy`` (condition, language), ``accuracy_no_edit`` (language) and
          ``accuracy_control`` (condition, control, language), each with ``_low`` and ``_high``;
        - ``correct`` (condition, item, language), ``correct_no_edit`` (item, language) and
          ``correct_control`` (condition, control, draw, item, language; NaN where the pool of a
          control was too small);
        - ``share`` (condition) and ``control_share`` (condition, control): the edited neurons'
          mean share of all contributions; ``n_neurons`` (condition, item, language);
        - ``counted`` (item, language), ``subject`` (item).

    Raises:
        NeuroglotError: bad settings, or a recording of another model or task.
    """
    job = job_of(
        model,
        task,
        recording,
        controls=check_controls(controls, draws, seed),
        how=Answering(
            check_positions(positions),
            check_answering(score, max_new_tokens),
            max_new_tokens,
            batch_size,
        ),
        threshold=threshold,
        out=out,
        overwrite=overwrite,
    )
    check_categories(categories)
    check_variants(variants, model)
    wanted = [(category, variant) for variant in variants for category in categories]
    outcome = outcome_of(job, wanted)
    if job.out is not None:
        save(outcome, job.out / outcome.attrs["unit"], overwrite=True)
    return outcome


def check_categories(categories: Sequence[str]) -> None:
    """Refuse what are no categories.

    Raises:
        NeuroglotError: a text in place of a list, none, an unknown one, or one twice.
    """
    if isinstance(categories, str):
        raise NeuroglotError(f"categories={categories!r} is one text; expected a list of names.")
    for category in categories:
        check_category(category)
    if not categories or len(set(categories)) < len(categories):
        raise NeuroglotError(f"categories={listed(categories) or 'none'}: expected different ones.")


def check_variants(variants: Sequence[Variant], model: Model) -> None:
    """Refuse variants that cannot be.

    Raises:
        NeuroglotError: none, one twice, or see :func:`check_variant`.
    """
    for variant in variants:
        if not isinstance(variant, Variant):
            raise NeuroglotError(f"a variant is a {type(variant).__name__}; expected ng.Variant.")
        check_variant(variant, model, SCORES)
    if not variants or len(set(variants)) < len(variants):
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
