"""The seed and the epoch's number: besides its position, all that a random choice depends on."""
import numpy as np

from dataflows.options import integer


class Epoch:
    """What one chain of DataFlows shares: its seed, which epoch the next iteration is, and where in it that starts.

    A component reads them when its iteration starts, so that changing them in mid-epoch affects the next one only.

    number: of the epoch, from 0.
    interruptions: of this epoch, after which another number of ranks went on: see `ranks.left_over`.
    samples_done: how many samples of this rank, of those that were left then, an earlier run has had: the iteration
        leaves them out.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = integer("seed", seed, 0, 2**128)
        self.go_to(0)

    def go_to(self, number: int, interruptions: tuple[tuple[int, int], ...] = (), samples_done: int = 0) -> None:
        """Makes this the next iteration."""
        self.number, self.interruptions, self.samples_done = number, interruptions, samples_done

    def generator(self, *stream: int) -> np.random.Generator:
        """A generator for one component's `stream` of random numbers in this epoch."""
        return np.random.default_rng([self.seed, self.number, *stream])
