"""Fine-tune a model on parallel texts, and see what becomes of sharing and of its answers."""
