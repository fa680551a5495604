"""Separate a model's thoughts from its answer, by the marks around thoughts.

The marks are those of many models, among them ``<think>…</think>`` (Qwen3, DeepSeek-R1, SmolLM3,
GLM, Granite 3.3), ``[THINK]…[/THINK]`` (Magistral) and the channels of gpt-oss. If a thought was
cut before its end, there is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TAGS = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
PAIRS = {
    **{f"<{tag}>": f"</{tag}>" for tag in TAGS},
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|channel>thought": "<channel|>",
    "Here is my thought process:": "Here is my response:",
}
"""The marks that open a thought, and the ones that close it."""
IN_WORDS = "Here is my thought process:"  # a mark only at the beginning of the text
# Marks around the answer itself.
FRAMES = re.compile(
    r"</?(?:answer|response)>|<\|(?:begin|end)_of_box\|>|<\|(?:START|END)_RESPONSE\|>"
)
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)(?:(?!<\|message\|>).)*<\|message\|>", re.DOTALL)
END_OF_MESSAGE = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
ANSWERING = "final"  # the channel of gpt-oss that holds the answer
MARK = re.compile("|".join(re.escape(mark) for pair in PAIRS.items() for mark in pair))
OPENED = re.compile(
    rf"(?:{'|'.join(re.escape(mark) for mark in PAIRS)}|<\|channel\|>\s*analysis<\|message\|>)\s*$"
)


@dataclass(frozen=True)
class Written:
    """A text that a model wrote.

    Attributes:
        text: the answer.
        thoughts: the thoughts before or within the answer, without marks; ``""`` if there are none.
        was_cut: whether the text ends within a thought.
    """

    text: str
    thoughts: str = ""
    was_cut: bool = False


def opened_by(prompt: str) -> str:
    """The mark that opens a thought at the end of a prompt; ``""`` if there is none."""
    mark = OPENED.search(prompt)
    return mark[0] if mark else ""


def has_thoughts(text: str) -> bool:
    """Whether a text has marks of thoughts."""
    return MARK.search(text) is not None or CHANNEL.search(text) is not None


def split(text: str, opened: str = "", special: Iterable[str] = ()) -> Written:
    """Split a text into answer and thoughts.

    Args:
        text: the text that was written, including special tokens.
        opened: the mark at the end of the prompt, from :func:`opened_by`.
        special: special tokens that are removed from answer and thoughts.
    """
    whole = opened + text
    answer, thoughts, was_cut = (_by_channel if CHANNEL.search(whole) else _by_mark)(whole)

    def plain(parts: list[str]) -> str:
        joined = "\n".join(parts)
        for token in sorted(special, key=len, reverse=True):
            joined = joined.replace(token, "")
        return joined.strip()

    framed = plain([part for part in answer if part.strip()])
    return Written(FRAMES.sub("", framed).strip(), plain(thoughts), was_cut)


def _by_mark(whole: str) -> tuple[list[str], list[str], bool]:
    """The parts outside and inside of thoughts, and whether the last thought was cut."""
    outside: list[str] = []
    inside: list[str] = []
    closing, place = "", 0
    for mark in MARK.finditer(whole):
        before = whole[place : mark.start()]
        if closing:
            if mark[0] != closing:
                continue
            inside.append(before)
            closing = ""
        elif mark[0] in PAIRS:
            if mark[0] == IN_WORDS and (outside or before.strip()):
                continue
            outside.append(before)
            closing = PAIRS[mark[0]]
        elif mark[0] == PAIRS[IN_WORDS]:
            continue
        else:
            # The thought was opened before the text, so all before the mark is thought.
            inside += [*outside, before]
            outside = []
        place = mark.end()
    (inside if closing else outside).append(whole[place:])
    return outside, inside, bool(closing)


def _by_channel(whole: str) -> tuple[list[str], list[str], bool]:
    """As :func:`_by_mark`, of messages in channels; only one channel holds the answer."""
    outside: list[str] = []
    inside: list[str] = []
    for head in CHANNEL.finditer(whole):
        end = END_OF_MESSAGE.search(whole, head.end())
        message = whole[head.end() : end.start() if end else len(whole)]
        (outside if head[1] == ANSWERING else inside).append(message)
    return outside, inside, not outside


def answer_in(text: str) -> str:
    """A text that was written, without its thoughts."""
    return split(text).text if has_thoughts(text) else FRAMES.sub("", text)
