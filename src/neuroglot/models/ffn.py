"""FFN neurons, the default kind of units."""

from __future__ import annotations

from torch import Tensor

from neuroglot.models.hooks import Place
from neuroglot.models.site_kinds import SiteKind
from neuroglot.models.units import Units

FFN = "ffn neurons"


class FFNNeurons(Units):
    """The neurons of dense feed-forward networks, all of which are computed for every token."""

    name = FFN

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of neurons in each layer."""
        return tuple(site.n_neurons for site in self.sites)

    def places(self, kind: SiteKind) -> list[Place]:
        """Where gates or coefficients can be read and written, one place per layer."""
        return [site.place(kind) for site in self.sites]

    def output_directions(self, layer: int) -> Tensor:
        """Value vectors (neuron, d_model); see :meth:`FFNSite.value_vectors`."""
        return self.sites[layer].value_vectors()
