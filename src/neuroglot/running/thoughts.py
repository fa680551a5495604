"""What a model thinks before it answers, told from the answer by the marks of chat templates.

``<think>…</think>`` (Qwen3, DeepSeek-R1, SmolLM3, GLM, Granite 3.3), ``[THINK]…[/THINK]``
(Magistral), the channels of gpt-oss, and what others call it. A thought that was cut before it
ended leaves no answer.
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
"""What opens a thought, and what closes it."""
IN_WORDS = "Here is my thought process:"  # counts only where it begins what was written
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
    """What a model wrote.

    Attributes:
        text: the answer.
        thoughts: what stood before or between, without its marks; ``""`` where there was nothing.
        was_cut: whether it ends within a thought.
    """

    text: str
    thoughts: str = ""
    was_cut: bool = False


def opened_by(prompt: str) -> str:
    """The mark with which a prompt ends that opens a thought; ``""`` if it does not."""
    found = OPENED.search(prompt)
    return found[0] if found else ""


def has_thoughts(text: str) -> bool:
    """Whether marks of thoughts are in a text."""
    return MARK.search(text) is not None or CHANNEL.search(text) is not None


def split(text: str, opened: str = "", special: Iterable[str] = ()) -> Written:
    """The answer in what was written, and the thoughts.

    Args:
        text: with the marks that are special tokens.
        opened: the mark of :func:`opened_by` at the end of the prompt.
        special: other special tokens, which are left out of both.
    """
    whole = opened + text
    answer, thoughts, was_cut = (_by_channel if CHANNEL.search(whole) else _by_mark)(whole)

    def plain(parts: list[str]) -> str:
        joined = "\n".join(parts)
        for token in sorted(special, key=len, reverse=True):
            joined = joined.replace(token, "")
        return joined.strip()

    said = plain([part for part in answer if part.strip()])
    return Written(FRAMES.sub("", said).strip(), plain(thoughts), was_cut)


def _by_mark(whole: str) -> tuple[list[str], list[str], bool]:
    """Parts outside and inside of thoughts, and whether the last one was cut."""
    outside: list[str] = []
    inside: list[str] = []
    closing, place = "", 0
    for mark in MARK.finditer(whole):
        before = whole[place : mark.start()]
        opens = mark[0] in PAIRS
        if closing:
            if mark[0] != closing:
                continue
            inside.append(before)
            closing = ""
        elif opens:
            if mark[0] == IN_WORDS and (outside or before.strip()):
                continue
            outside.append(before)
            closing = PAIRS[mark[0]]
        elif mark[0] == PAIRS[IN_WORDS]:
            continue
        else:
            # Opened where nobody saw it: all before is thought.
            inside += [*outside, before]
            outside = []
        place = mark.end()
    (inside if closing else outside).append(whole[place:])
    return outside, inside, bool(closing)


def _by_channel(whole: str) -> tuple[list[str], list[str], bool]:
    """The same of messages in channels; those of other channels than the answer's are thoughts."""
    outside: list[str] = []
    inside: list[str] = []
    for head in CHANNEL.finditer(whole):
        end = END_OF_MESSAGE.search(whole, head.end())
        message = whole[head.end() : end.start() if end else len(whole)]
        (outside if head[1] == ANSWERING else inside).append(message)
    return outside, inside, not outside


def answer_in(text: str) -> str:
    """What was written, without thoughts."""
    return split(text).text if has_thoughts(text) else FRAMES.sub("", text)
