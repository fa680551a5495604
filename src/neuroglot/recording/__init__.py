"""Which neurons were active for each prompt."""
