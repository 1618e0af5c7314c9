"""The seed and the number of the epoch: all that a random choice may depend on besides its position."""
import numpy as np

from dataflows.options import integer


class Epoch:
    """What one chain of DataFlows shares: its seed, and which epoch the next iteration is.

    A component reads `number` when its iteration starts, so that changing it in mid-epoch affects the next one only.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = integer("seed", seed, 0)
        self.number = 0

    def generator(self, stream: int) -> np.random.Generator:
        """A generator for one component's `stream` of random numbers in this epoch."""
        return np.random.default_rng([self.seed, self.number, stream])
