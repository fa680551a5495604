"""The example notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat")
nbclient: Any = pytest.importorskip("nbclient")
N_ITEMS = "limit=40"
NOTEBOOK = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_runs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    limited = [cell for cell in notebook.cells if N_ITEMS in cell.source]
    assert len(limited) == 1
    limited[0].source = limited[0].source.replace(N_ITEMS, "limit=20")  # the fewest for baselines
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("report.html" in str(output) for output in outputs)
