"""What neurons contribute to the answers: scores, their sum by category, and a causal check."""
