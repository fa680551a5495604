"""Sets of neurons: the same in every prompt, or one for each prompt."""
