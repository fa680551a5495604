"""What the recorded activity says: categories, repetition, overlap. Pure functions."""
