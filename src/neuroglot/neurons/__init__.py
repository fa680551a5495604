"""Sets of neurons: the same in every prompt, or one for each prompt."""

from neuroglot.neurons.neuron_set import NeuronSet

__all__ = ["NeuronSet"]
