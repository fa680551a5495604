"""Default values, for Python and for the command line."""

MAX_NEW_TOKENS = 32  # the largest number of tokens that a model writes
EQUIVALENT_WITHIN = 0.05  # five percentage points of accuracy
NEURON_SCORES = ("contribution", "effective", "direct_logit")
TESTED_NEURONS = 64  # neurons of each layer whose scores are compared with the effect of zeroing
CONTROLS = ("size", "active", "contribution")
DRAWS = 5  # random sets of neurons of each control for a prompt
CATEGORIES = ("all_shared", "partial_shared", "specific", "specific_here", "non_activated")
FACTORS = (1.1, 1.25, 1.5, 2.0, 3.0)  # candidates for amplifying a category
DEMO_ITEMS = 80
