"""Sets of neurons: one for a model, or one for each prompt."""

from neuroglot.neurons.neuron_set import NeuronSet
from neuroglot.neurons.prompt_sets import PromptSets

__all__ = ["NeuronSet", "PromptSets"]
