"""Statistics of recorded activity: categories, repetition, overlap. Pure functions."""
