"""The answers of models to tasks, their accuracy, and how certain it is."""
