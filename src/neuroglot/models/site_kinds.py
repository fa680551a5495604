"""Names of the two values of a neuron that can be read. This module imports nothing heavy."""

from __future__ import annotations

from typing import Literal

SiteKind = Literal["gate", "coefficient"]
SITE_KINDS: tuple[SiteKind, ...] = ("gate", "coefficient")
