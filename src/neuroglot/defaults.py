"""What holds where a user says nothing, in Python as on the command line."""

MAX_NEW_TOKENS = 32  # that a model writes
EQUIVALENT_WITHIN = 0.05  # five percentage points of accuracy
NEURON_SCORES = ("contribution", "effective", "direct_logit")
TESTED_NEURONS = 64  # of each layer, whose scores are held against what zeroing them does
CONTROLS = ("size", "active", "contribution")
DRAWS = 5  # random sets of each control for a prompt
CATEGORIES = ("all_shared", "partial_shared", "specific", "specific_here", "non_activated")
FACTORS = (1.1, 1.25, 1.5, 2.0, 3.0)  # to choose from, where a category is amplified
DEMO_ITEMS = 80
