"""Load a model, find and verify its feed-forward sites, read and edit them."""

from neuroglot.models.loading import EMBEDDED, load_model
from neuroglot.models.model import Model, wrap_model
from neuroglot.models.operations import operation
from neuroglot.models.tokenization import Tokenization

__all__ = ["EMBEDDED", "Model", "Tokenization", "load_model", "operation", "wrap_model"]
