"""How results are kept: growing, atomic, resumable, with their provenance."""
