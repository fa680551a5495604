"""Groups of options that functions take as one argument.

A group of options is a frozen dataclass that checks its values and imports nothing slow. The flags
of the command line are made from its fields, and their help from the fields' metadata; see
``neuroglot.cli.options``.
"""

from __future__ import annotations

from typing import Any

from neuroglot.errors import NeuroglotError


def options_of(given: Any, kind: type[Any], name: str) -> Any:
    """The options that were passed, or the default ones.

    Args:
        given: the value of the argument: options, or ``None``.
        kind: the class of the options.
        name: the name of the argument.

    Raises:
        NeuroglotError: the value is neither of the class nor ``None``.
    """
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise NeuroglotError(
            f"{name}= is a {type(given).__name__}; expected {name}=ng.{kind.__name__}(…)."
        )
    return given
