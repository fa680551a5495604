"""Load a model, find and verify its feed-forward sites, read and edit its units."""
