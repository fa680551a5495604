"""How a model is aligned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from neuroglot.errors import NeuroglotError, is_whole_number, listed, require_finite

Method = Literal["translation", "instruction", "sharing", "unpaired"]
METHODS: tuple[Method, ...] = ("translation", "instruction", "sharing", "unpaired")
MISMATCHABLE = ("translation", "sharing")
LARGEST = 2**32 - 1  # seed that NumPy takes
LEARNING_RATE, LORA_LEARNING_RATE = 5e-5, 2e-4


@dataclass(frozen=True)
class Training:
    """What decides how long and on what a model is trained.

    Attributes:
        steps: of the optimiser.
        pairs: of texts in a step, all in the same two languages.
        learning_rate: at its peak, after a tenth of the steps; it then falls to zero. By default
            5e-5, and 2e-4 for LoRA.
        bf16: compute in bfloat16 where that is safe (autocast); the weights keep their type.
        languages: codes of those that are trained; by default all. The others are held out.
        held_out: share of the items that are never trained.
        mismatched: pair each text with that of another item: the control of ``"translation"`` and
            ``"sharing"``.
        sharing_weight: of the term of ``"sharing"`` beside the language model's loss. The term is
            1 where languages differ as much as before.
        rate_weight: of what keeps rates of activity, inside that term.
        lora_rank: of the adapters, where such are trained.
        checks: how often accuracy and sharing are measured on the way.
        checked_items: the most items that they are measured on, of those that are trained and of
            those that are not.
        seed: of the split, the order of the texts and the training.
    """

    steps: int = 300
    pairs: int = 16
    learning_rate: float | None = None
    bf16: bool = False
    languages: tuple[str, ...] | None = None
    held_out: float = 0.25
    mismatched: bool = False
    sharing_weight: float = 1.0
    rate_weight: float = 10.0
    lora_rank: int = 16
    checks: int = 4
    checked_items: int = 100
    seed: int = 0


def check_method(method: str) -> Method:
    """The method, if there is such.

    Raises:
        NeuroglotError: it lists those that there are.
    """
    if method not in METHODS:
        raise NeuroglotError(f"unknown method {method!r}; there are {listed(METHODS)}.")
    return method


def check_training(training: Training, method: Method) -> None:
    """Refuse settings that cannot be.

    Raises:
        NeuroglotError: it names the setting, what was found and what is expected.
    """
    if not isinstance(training, Training):
        raise NeuroglotError(f"training={training!r}: expected ng.Training(…).")
    least = {"steps": 1, "pairs": 2, "lora_rank": 1, "checks": 1, "checked_items": 1, "seed": 0}
    for name, lowest in least.items():
        value = getattr(training, name)
        if not is_whole_number(value, lowest, LARGEST):
            raise NeuroglotError(
                f"{name}={value!r}: expected a whole number from {lowest} to {LARGEST}."
            )
    if training.checks > training.steps:
        raise NeuroglotError(f"checks={training.checks}: there are {training.steps} steps.")
    for name in ("held_out", "sharing_weight", "rate_weight", "learning_rate"):
        value = getattr(training, name)
        if name == "learning_rate" and value is None:
            continue
        require_finite(name, value)
        if value < 0:
            raise NeuroglotError(f"{name}={value}: expected a number from 0.")
    if not 0 < training.held_out < 1:
        raise NeuroglotError(
            f"held_out={training.held_out}: expected a share of the items between 0 and 1."
        )
    if training.mismatched and method not in MISMATCHABLE:
        raise NeuroglotError(f"mismatched: {method!r} pairs no texts; {listed(MISMATCHABLE)} do.")


def described(training: Training, method: Method, how: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as attributes of a result."""
    found = asdict(training) | {"method": method} | dict(how)
    found["languages"] = listed(training.languages or ("all",), 1000)
    found |= {"mismatched": int(training.mismatched), "bf16": int(training.bf16)}
    return {f"training_{key}": value for key, value in found.items()}


def rate_of(training: Training, *, lora: bool) -> float:
    """The learning rate at its peak."""
    if training.learning_rate is not None:
        return training.learning_rate
    return LORA_LEARNING_RATE if lora else LEARNING_RATE
