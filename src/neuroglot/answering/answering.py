"""How a task is answered, as options of the user."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neuroglot.defaults import MAX_NEW_TOKENS
from neuroglot.errors import NeuroglotError, is_whole_number, listed

ChoiceScore = Literal["sum", "mean"]
CHOICE_SCORES: tuple[ChoiceScore, ...] = ("sum", "mean")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How the prompts of a task are answered: by choosing where it has choices, else by writing.

    Attributes:
        choice_score: the likeliest choice has the largest ``"sum"`` of the log-probabilities of its
            tokens, or the largest ``"mean"`` per token.
        max_new_tokens: the most tokens that the model writes, thoughts included.
        masked: whether to ask with the subject masked too, where choices are given and items have
            masked prompts. By default :func:`neuroglot.evaluate` does; an intervention, which then
            takes twice the time, does not.

    Raises:
        NeuroglotError: an unknown score, or no whole number of tokens from 1.
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
