"""How results are kept: growing, atomic, resumable, with their provenance.

Each question about the folder of a result has a module that answers it:

- Is it a folder of neuroglot, or the user's? ``whose`` and ``folders.is_result``.
- What did a killed process leave behind? ``folders``.
- Was it made with the same settings? ``results.differences``.
- Which blocks of items are missing? ``blockwise``; ``growing`` makes them.
- Is it of fewer items or languages than are wanted now? ``taking_over``.
- Up to which item are sums added up? ``accumulating``.
- Is a file damaged, and what can be written again? ``damage`` and ``mending``.
- Do results, models and tasks belong together? ``joining``, by what ``provenance`` says.
"""
