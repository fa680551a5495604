"""The methods and settings of alignment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from neuroglot.errors import NeuroglotError, is_whole_number, listed, require_finite

Method = Literal["translation", "instruction", "sharing", "unpaired"]
METHODS: tuple[Method, ...] = ("translation", "instruction", "sharing", "unpaired")
MISMATCHABLE = ("translation", "sharing")
LARGEST = 2**32 - 1  # the largest seed that NumPy accepts
LEARNING_RATE, LORA_LEARNING_RATE = 5e-5, 2e-4


@dataclass(frozen=True)
class Training:
    """The settings of :func:`neuroglot.align`.

    Attributes:
        steps: the number of steps of the optimiser.
        pairs: the number of pairs of texts in a step, all in the same two languages.
        learning_rate: the peak of the learning rate, which it reaches after a tenth of the steps;
            then it falls to zero. By default 5e-5, and 2e-4 for LoRA.
        bf16: whether to compute in bfloat16 where that is safe (autocast); the weights keep their
            type.
        languages: codes of the languages that are trained, by default all; the others are held out.
        held_out: the share of the items that is never trained.
        mismatched: whether to pair each text with a text of another item, as the control for
            ``"translation"`` and ``"sharing"``.
        sharing_weight: the weight of the loss term of ``"sharing"`` beside the loss of the language
            model. The term is 1 if languages differ as much as before training.
        rate_weight: the weight of changed rates of activity within that term.
        lora_rank: the rank of the adapters, if adapters are trained.
        checks: how many times accuracy and sharing are measured during training.
        checked_items: the largest number of trained items, and of held-out items, that they are
            measured on.
        seed: the seed of the split, of the order of the texts and of the training.

    Examples:
        >>> import neuroglot as ng
        >>> ng.Training(steps=100, languages=("en", "de"))  # doctest: +ELLIPSIS
        Training(steps=100, pairs=16, learning_rate=None, bf16=False, languages=('en', 'de'), ...)
    """

    steps: int = field(default=300, metadata={"help": "Steps of the optimiser."})
    pairs: int = field(default=16, metadata={"help": "Pairs of texts in a step."})
    learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate. Default: 5e-5, or 2e-4 for LoRA."}
    )
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16 (autocast)."})
    languages: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "flag": "train_languages",
            "help": "Languages that are trained; the others are held out. Default: all.",
        },
    )
    held_out: float = field(
        default=0.25, metadata={"help": "Share of the items that are not trained."}
    )
    mismatched: bool = field(
        default=False, metadata={"help": "As a control, pair texts of different items."}
    )
    sharing_weight: float = field(
        default=1.0, metadata={"help": "Weight of the sharing term beside the loss."}
    )
    rate_weight: float = field(
        default=10.0, metadata={"help": "Weight of changed rates of activity in that term."}
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapters."})
    checks: int = field(
        default=4, metadata={"help": "Number of times that accuracy and sharing are measured."}
    )
    checked_items: int = field(
        default=100,
        metadata={"help": "Largest number of trained, and of held-out, items for that."},
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the split, the order and the training."}
    )


def check_method(method: str) -> Method:
    """The method, if its name is known.

    Raises:
        NeuroglotError: it is unknown; the message lists the methods.
    """
    if method not in METHODS:
        raise NeuroglotError(f"unknown method {method!r}; the methods are {listed(METHODS)}.")
    return method


def check_training(training: Training, method: Method) -> None:
    """Refuse settings that are not valid.

    Raises:
        NeuroglotError: the message names the setting, what was found and what is expected.
    """
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


def described(training: Training, method: Method, others: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as attributes of a result."""
    settings = {
        **asdict(training),
        "method": method,
        **others,
        "languages": listed(training.languages or ("all",), 1000),
        "mismatched": int(training.mismatched),
        "bf16": int(training.bf16),
    }
    return {f"training_{key}": value for key, value in settings.items()}
