"""Options of how a task is answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neuroglot.defaults import MAX_NEW_TOKENS
from neuroglot.errors import NeuroglotError, is_whole_number, listed

ChoiceScore = Literal["sum", "mean"]
CHOICE_SCORES: tuple[ChoiceScore, ...] = ("sum", "mean")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How the prompts of a task are answered: by choosing if it has choices, else by writing.

    Attributes:
        choice_score: the score of a choice: the ``"sum"`` of the log-probabilities of its tokens,
            or their ``"mean"``. The model chooses the choice with the highest score.
        max_new_tokens: the largest number of tokens that the model writes, thoughts included.
        masked: whether the model is also asked with the subject masked, if there are choices and
            items have masked prompts. By default it is by :func:`neuroglot.evaluate`, and is not by
            :func:`neuroglot.intervene`, which would take twice the time.

    Raises:
        NeuroglotError: the score is unknown, or the number of tokens is not a whole number from 1.

    Examples:
        >>> import neuroglot as ng
        >>> model = ng.load_model("embedded/base")
        >>> task = ng.load_task("facts", languages=["en", "de"], limit=2)
        >>> answers = ng.evaluate(model, task, answering=ng.Answering(choice_score="mean"))
        >>> answers.attrs["choice_score"]
        'mean'
    """

    choice_score: ChoiceScore = field(
        default="sum",
        metadata={"help": "Choices by the sum of their log-probabilities, or the mean a token."},
    )
    max_new_tokens: int = field(
        default=MAX_NEW_TOKENS,
        metadata={"help": "The most tokens that the model writes where there are no choices."},
    )
    masked: bool | None = field(
        default=None,
        metadata={"help": "Whether to ask with the subject masked too, where the task can."},
    )

    def __post_init__(self) -> None:
        if self.choice_score not in CHOICE_SCORES:
            raise NeuroglotError(
                f"unknown choice_score {self.choice_score!r}; there are {listed(CHOICE_SCORES)}."
            )
        if not is_whole_number(self.max_new_tokens, 1):
            raise NeuroglotError(
                f"max_new_tokens={self.max_new_tokens}: expected at least 1, a whole number."
            )
