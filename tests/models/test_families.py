"""Every family, on a tiny random model: what is read is what its code computes, batched or not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuroglot as ng
from docs.make_families import page
from neuroglot.models import finding
from neuroglot.models.forward import run_logits
from neuroglot.models.site_kinds import SITE_KINDS, SiteKind
from tests.families import CONTEXT, FAMILIES, N_LAYERS, N_NEURONS, family_hf
from tests.testing import small_task, tokenizer

IDS = torch.tensor([[2, 5, 9, 30, 7], [40, 3, 3, 8, 11]])
NEAR = 1e-5  # values closer to the threshold may fall on either side, by rounding
WIDER = {"bloom": 80, "mpt": 64}  # four times the hidden width

families = pytest.mark.parametrize("name", FAMILIES)
kinds = pytest.mark.parametrize("kind", SITE_KINDS)


@cache
def model_of(name: str) -> ng.Model:
    return ng.wrap_model(family_hf(name), tokenizer(), name=name)


def logits(name: str, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return family_hf(name)(ids).logits


def hooks_on(hf: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules())


@contextmanager
def watching(name: str, path: str, which: str) -> Iterator[list[torch.Tensor]]:
    """Inputs or outputs of the modules at a path, layer by layer, without neuroglot's hooks."""
    seen: list[torch.Tensor] = []

    def keep(_module: Any, inputs: Any, output: torch.Tensor) -> None:
        # A copy: Falcon adds its attention to the output of the down projection, in place.
        seen.append((output if which == "output" else inputs[0]).detach().clone())

    with ExitStack() as stack:
        for i in range(N_LAYERS):
            module = family_hf(name).get_submodule(path.format(i=i))
            stack.callback(module.register_forward_hook(keep).remove)
        yield seen


def longhand(name: str, text: str, kind: SiteKind) -> np.ndarray:
    """Site values (layer, token, neuron) of one prompt."""
    family = FAMILIES[name]
    gate = kind == "gate" and family.act is not None
    path, which = (family.act, "output") if gate else (family.down, "input")
    with watching(name, str(path), which) as seen:
        logits(name, torch.tensor([tokenizer()(text).input_ids]))
    return np.stack([values.flatten(0, -2).numpy() for values in seen])


@families
def test_found_as_written_in_the_familys_code(name: str) -> None:
    model, family = model_of(name), FAMILIES[name]
    assert [site.layer for site in model.sites] == list(range(N_LAYERS))
    for i, site in enumerate(model.sites):
        assert site.path == family.down.format(i=i)
        if family.up is None:
            assert site.activation is None
        else:
            assert site.activation is model.hf.get_submodule(str(family.act).format(i=i))
    assert model.n_neurons == WIDER.get(name, N_NEURONS)
    assert model.context_length == (None if name == "bloom" else CONTEXT)
    described = model.describe()
    assert described["found_by"] == ("structure" if family.structural else "table")
    assert described["norm_after_ffn"] is family.norm_after


@families
def test_the_structure_says_the_same_as_the_table(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "LEAF_PATHS", ())
    found = finding.find_sites(family_hf(name))
    assert [site.found_by for site in found] == ["structure"] * N_LAYERS
    for site, known in zip(found, model_of(name).sites, strict=True):
        assert (site.path, site.activation) == (known.path, known.activation)


@families
@kinds
def test_reading_sees_every_layer_once_and_changes_nothing(name: str, kind: SiteKind) -> None:
    model = model_of(name)
    before = logits(name)
    seen: list[tuple[int, tuple[int, ...]]] = []
    with model.units().reading(
        kind, lambda i, v: seen.append((i, tuple(v.shape))), range(N_LAYERS)
    ):
        during = logits(name)
    assert torch.equal(before, during)
    assert seen == [(i, (2, 5, model.n_neurons)) for i in range(N_LAYERS)]
    assert hooks_on(model.hf) == 0


@families
@kinds
def test_reading_may_end_the_forward_pass(name: str, kind: SiteKind) -> None:
    """Layers are read as ever up to the last that is wanted; nothing after it runs."""
    model = model_of(name)
    whole: list[torch.Tensor] = []
    with model.units().reading(kind, lambda _i, values: whole.append(values), [0, 1]):
        logits(name)
    some: list[torch.Tensor] = []
    ended = False
    with model.units().reading(
        kind, lambda _i, values: some.append(values), [1, 0], then_stop=True
    ):
        logits(name)
        ended = True
    assert not ended
    assert len(some) == len(whole) == 2
    assert all(map(torch.equal, some, whole))
    assert hooks_on(model.hf) == 0


@families
def test_one_coefficient_of_one_prompt_is_edited(name: str) -> None:
    model = model_of(name)
    before = logits(name)

    def edit(layer: int, values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values[1, 2, 3] += 5.0 if layer == 1 else 0.0
        return values

    with model.units().editing(edit):
        after = logits(name)
    changed = (before != after).any(dim=-1)
    assert changed.tolist() == [[False] * 5, [False, False, True, True, True]]
    assert torch.equal(before, logits(name))


def test_an_edit_returns_what_it_was_given() -> None:
    wrong: list[Any] = [lambda *_: None, lambda _layer, values: values.transpose(0, 1)]
    for edit in wrong:
        with (
            pytest.raises(ng.NeuroglotError, match=r"layer 0 returned .*row, position, neuron"),
            model_of("opt").units().editing(edit),
        ):
            logits("opt")
        assert hooks_on(model_of("opt").hf) == 0


@families
def test_zeroing_shows_and_exceptions_leave_no_hook(name: str) -> None:
    model = model_of(name)
    before = logits(name)
    with model.units().editing(lambda _layer, values: values * 0):
        assert not torch.equal(before, logits(name))

    def failing(*_: Any) -> Any:
        raise RuntimeError("stop")

    for context in (model.units().editing(failing), model.units().reading("gate", failing, [1])):
        with pytest.raises(RuntimeError, match="stop"), context:
            logits(name)
        assert hooks_on(model.hf) == 0
    assert torch.equal(before, logits(name))


@families
def test_coefficients_times_value_vectors_are_the_ffn(name: str) -> None:
    """FFN(x) - bias = sum of m_i v_i, added up one neuron after the other."""
    model = model_of(name)
    down = FAMILIES[name].down
    with watching(name, down, "input") as inputs, watching(name, down, "output") as outputs:
        logits(name)
    for site, coefficients, output in zip(model.sites, inputs, outputs, strict=True):
        vectors = site.value_vectors()
        assert vectors.shape == (model.n_neurons, output.shape[-1])
        total = torch.zeros_like(output)
        for i in range(model.n_neurons):
            total += coefficients[..., i, None] * vectors[i]
        bias = getattr(site.down, "bias", None)
        expected = output - (0 if bias is None else bias.detach())
        torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].up])
def test_the_coefficient_is_the_gate_times_up(name: str) -> None:
    model, family = model_of(name), FAMILIES[name]
    gates: list[torch.Tensor] = []
    coefficients: list[torch.Tensor] = []
    with (
        watching(name, str(family.up), "output") as ups,
        model.units().reading("gate", lambda _i, g: gates.append(g), range(N_LAYERS)),
        model.units().reading("coefficient", lambda _i, m: coefficients.append(m), range(N_LAYERS)),
    ):
        logits(name)
    for gate, up, coefficient in zip(gates, ups, coefficients, strict=True):
        factor = up[..., model.n_neurons :] if family.fused else up
        torch.testing.assert_close(gate * factor, coefficient, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(gate, coefficient, atol=1e-3)


@cache
def oracle(name: str, kind: SiteKind, position: str) -> tuple[np.ndarray, np.ndarray]:
    """Category codes (item, layer, neuron), and where a value is too near the threshold to tell."""
    task, model = small_task(), model_of(name)
    codes = np.zeros((len(task), N_LAYERS, model.n_neurons), dtype=np.uint8)
    near = np.zeros(codes.shape, dtype=bool)
    pick: Callable[[np.ndarray], np.ndarray] = (
        (lambda values: values[:, -1]) if position == "last" else (lambda values: values.max(1))
    )
    for i, item in enumerate(task.items):
        values = [pick(longhand(name, item["prompts"][code], kind)) for code in task.languages]
        for layer in range(N_LAYERS):
            for neuron in range(model.n_neurons):
                of_languages = [float(value[layer, neuron]) for value in values]
                k = sum(value > 0 for value in of_languages)
                codes[i, layer, neuron] = 0 if k == 0 else 1 if k == 1 else 3 if k == 3 else 2
                near[i, layer, neuron] = any(abs(value) < NEAR for value in of_languages)
    return codes, near


@families
@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_categories_are_those_of_single_prompts(name: str, kind: SiteKind, side: str) -> None:
    padded = copy.copy(tokenizer())
    padded.padding_side = side
    model = ng.wrap_model(family_hf(name), padded)
    for position in ("last", "all"):
        expected, near = oracle(name, kind, position)
        assert len(np.unique(expected)) >= 3, "the oracle must see the categories differ"
        for batch_size in (1, 3, "auto"):
            recording = ng.record(
                model.with_batch_size(batch_size),
                small_task(),
                reading=ng.Reading(site=kind, position=position),
            )
            flipped = ng.categories(recording).values != expected
            assert not (flipped & ~near).any(), f"{side}, {position}, {batch_size}"
            assert flipped.sum() <= 1, "more than rounding"


@families
def test_logits_from_a_position_on(name: str) -> None:
    whole = logits(name)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    with torch.no_grad():
        for first in (0, 3, 4):
            found = run_logits(family_hf(name), IDS, mask, first)
            torch.testing.assert_close(found, whole[:, first:], atol=1e-5, rtol=1e-5)


def test_the_page_of_families_is_what_was_measured() -> None:
    written = Path(__file__).parents[2] / "docs" / "families.md"
    assert written.read_text(encoding="utf-8") == page(), "run: python -m docs.make_families"
