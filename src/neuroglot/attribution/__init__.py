"""What neurons contribute to the answers: scores, their sums by category, and a causal check."""
