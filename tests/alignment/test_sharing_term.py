"""The term that pulls translations together, against longhand and against what it must not do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import neuroglot as ng
from neuroglot.alignment.sharing import (
    BeforeTraining,
    SharingTerm,
    before_training,
    disagreement,
    rate_drift,
    soft_activity,
)
from tests.testing import longhand_values, small_task, tiny_model

SHAPE = (8, 3, 20)  # text, layer, neuron


def random_values(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_activity_is_zero_or_one_and_has_a_gradient() -> None:
    values = random_values().requires_grad_()
    active = soft_activity(values)
    torch.testing.assert_close(active.detach(), (values > 0).float())
    active.sum().backward()
    assert values.grad is not None
    assert (values.grad > 0).all()


def test_disagreement_longhand() -> None:
    one, other = (soft_activity(random_values(seed)) for seed in (0, 1))
    different = sum(int((one[place] > 0.5) != (other[place] > 0.5)) for place in np.ndindex(*SHAPE))
    assert float(disagreement(one, other)) == pytest.approx(different / np.prod(SHAPE))
    assert float(disagreement(one, one)) == pytest.approx(0, abs=1e-6)


def test_rate_drift_is_right_on_average_however_few_the_texts() -> None:
    rng = np.random.default_rng(0)
    rate, real = 0.3, 0.5
    for n in (2, 5, 40):
        drawn = torch.from_numpy((rng.random((4000, n, 1, 1)) < real).astype(np.float32))
        found = [float(rate_drift(each, torch.full((1, 1), rate))) for each in drawn]
        error = np.std(found) / np.sqrt(len(found))
        assert np.mean(found) == pytest.approx((real - rate) ** 2, abs=4 * error)


def test_rates_and_disagreement_before_training_longhand() -> None:
    model, task = tiny_model("llama"), small_task(6)
    recording = ng.record(model, task)
    trained = np.array([[lang not in item["held_out"] for lang in task.languages]
                        for item in task.items])  # fmt: skip
    found = before_training(recording, trained)
    active = np.array(
        [[longhand_values(model, item["prompts"][lang], "gate")[:, -1] > 0
          for lang in task.languages] for item in task.items]
    )  # fmt: skip
    different = [
        (active[i, a] != active[i, b]).mean()
        for i in range(6) for a in range(3) for b in range(a)
        if trained[i, a] and trained[i, b]
    ]  # fmt: skip
    assert found.disagreement == pytest.approx(np.mean(different))
    for j, language in enumerate(task.languages):
        expected = active[trained[:, j], j].mean(axis=0)
        np.testing.assert_allclose(found.rates[language].numpy(), expected, atol=1e-6)


def trained_values(rate_weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (text, layer, neuron) of two languages, before and after descent on the term alone."""
    rng = torch.Generator().manual_seed(0)
    values = torch.randn((400, 1, 30), generator=rng) - 0.8
    start = values.clone()
    rates = (start.reshape(2, 200, 1, 30) > 0).float().mean(dim=1)
    before = BeforeTraining({"a": rates[0], "b": rates[1]}, 0.4)
    values.requires_grad_()
    optimizer = torch.optim.Adam([values], lr=0.02)
    term = SharingTerm(before, rate_weight)
    for _ in range(300):
        optimizer.zero_grad()
        term(term.parts(values, ("a", "b"))).backward()
        optimizer.step()
    return start, values.detach()


def test_descent_makes_languages_agree_and_keeps_their_rates() -> None:
    start, after = trained_values(rate_weight=10)
    was, now = (disagreement(*(x > 0).float().chunk(2)) for x in (start, after))
    assert now < 0.5 * was
    rates = [(x > 0).float().mean(dim=0) for x in (start, after)]
    assert float((rates[0] - rates[1]).abs().mean()) < 0.05


def test_without_rates_it_collapses() -> None:
    start, after = trained_values(rate_weight=0)
    rates = [float((x > 0).float().mean()) for x in (start, after)]
    assert rates[1] < 0.7 * rates[0], "the sparse go off, as nothing keeps them"


def test_languages_that_never_disagree_are_refused() -> None:
    records = [
        {"id": f"i{i}", "prompts": {"en": f"w{i + 2} w3", "de": f"w{i + 2} w3"}} for i in range(3)
    ]
    task = ng.ParallelTask.from_records(records, name="same")
    recording = ng.record(tiny_model("llama"), task)
    with pytest.raises(ng.NeuroglotError, match="nothing is left"):
        before_training(recording, np.ones((3, 2), bool))
