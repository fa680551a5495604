"""Change what neurons do, beside controls, and measure the answers."""
