"""The parts of the dump and the loaders: tensorpack DataFlows, and the pure functions under them."""
from dataflows.images.transforms import CenterCrop, RandomResizedCrop

__all__ = ["CenterCrop", "RandomResizedCrop"]
