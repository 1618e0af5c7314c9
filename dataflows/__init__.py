"""The components that the dump and the loaders are made of: tensorpack DataFlows, and the pure functions under them."""
from dataflows.images.transforms import CenterCrop, RandomResizedCrop

__all__ = ["CenterCrop", "RandomResizedCrop"]
