"""TorchBatches: iterates over a chain as torch tensors on their device, with epochs, state and statistics."""
import copy
import dataclasses
from typing import Any, Callable, Generator, NoReturn

import numpy as np

from dataflows.images.pipeline import Pipeline, Transform
from dataflows.load.chain import Decoding, batches_of, decoded, pointers_of
from dataflows.load.dataset import MapSamples
from dataflows.load.decode.decode_batches import DecodeBatches
from dataflows.load.decode.reader import RecordReader
from dataflows.load.iteration import Iterations
from dataflows.load.late_ranks import LateRanks
from dataflows.load.meter import Meter
from dataflows.load.samplers import EpochBatchSampler, EpochSampler
from dataflows.load.state import restored, saved
from dataflows.load.stats import Stats
from dataflows.load.to_torch import Batch, ToTorch
from dataflows.options import OptionsOnce, fixed_property, integer
from dataflows.order.epoch import Epoch
from dataflows.order.order import Order
from dataflows.order.ranks import Ranks
from dataflows.tensorpack import DataFlow


class TorchBatches(OptionsOnce):
    """What LMDBLoader and LMDBIterLoader share: epochs, their state, and closing. See there for options and behaviour.

    Which rank this is, is asked when it is first used, and not before: see LateRanks.
    """

    def __init__(self, reader: RecordReader, order: Order, ranks: LateRanks, decoding: Decoding,
                 to_torch: ToTorch, /) -> None:
        self._reader = reader
        self._order = order
        self._asked_ranks = ranks
        self._decoding = decoding
        self._epoch = Epoch(order.seed)
        # Refuses wrong options here; which rank this is need not be known yet.
        self._refuse_nothing(pointers_of(reader.store, order, self._epoch,
                                         ranks() if ranks.given else Ranks(0, 1, ranks.uneven)))
        self._description = order.description(reader.store, ranks.uneven)
        self._meter = Meter()
        self._to_torch = to_torch.with_tail(decoding.pipeline.tail)
        self._iterations = Iterations(self._epoch, self._meter)
        self._own_pointers: DataFlow | None = None
        self._chain: DataFlow | None = None
        self._at_work = self.num_workers

    def _refuse_nothing(self, pointers: DataFlow) -> None:
        batch_size, drop_last = self._decoding.batch_size, self._decoding.drop_last
        if len(pointers) < (batch_size if drop_last else 1):
            raise ValueError(f"nothing is left of {len(pointers)} samples per rank with batch_size={batch_size}, "
                             f"drop_last={drop_last} and uneven={self._asked_ranks.uneven!r}; use a smaller "
                             f"batch_size, drop_last=False or uneven='pad'")

    # --- options

    @property
    def batch_size(self) -> int:
        """Images per batch, of each rank; fixed, as in torch's DataLoader."""
        return self._decoding.batch_size

    @property
    def num_workers(self) -> int:
        """How many threads or processes were asked for, or the default."""
        return self._decoding.workers

    @property
    def drop_last(self) -> bool:
        """Whether a last batch that is smaller is left out."""
        return self._decoding.drop_last

    @property
    def pin_memory(self) -> bool:
        """Whether batches are asked for in page-locked memory."""
        return self._to_torch.pin_memory

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next iteration is."""
        return self._epoch.number

    @property
    def transform(self) -> Transform | Pipeline | None:
        """What is done to each image: as it was given, or taken apart where it is several transforms; `print` it to see
        what is fused into decoding, and what is not. A new one takes effect with the next iteration: resolution may
        grow by epochs."""
        pipeline = self._decoding.pipeline
        return pipeline if pipeline.parts else pipeline.given

    @transform.setter
    def transform(self, transform: Transform | Pipeline | None) -> None:
        decoding = dataclasses.replace(self._decoding, transform=transform)
        self._to_torch = self._to_torch.with_tail(decoding.pipeline.tail)
        self._decoding, self._chain = decoding, None

    # --- what a DataLoader has, for frameworks that ask for it

    @property
    def dataset(self) -> MapSamples:
        """The file as a map-style dataset with the same transform: `len` is its number of records."""
        decoding = self._decoding
        return MapSamples(self._reader, decoding.transform, decoding.target_transform, decoding.pipeline.image_type,
                          self._to_torch.return_index)

    @property
    def sampler(self) -> EpochSampler:
        """The record numbers of the next epoch; it has set_epoch."""
        return EpochSampler(self)

    @property
    def batch_sampler(self) -> EpochBatchSampler:
        """The record numbers of each batch of the next epoch."""
        return EpochBatchSampler(self)

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any]:
        """Makes a batch of samples of `dataset`, in the dtype of this loader's, and in host memory."""
        return self._to_torch.for_samples().collate

    @property
    def classes(self) -> list[str]:
        """Class folder names (wnids, for ImageNet) by class number; the numbers themselves without an index. Where
        labels are vectors, what each of their numbers is called."""
        return self.dataset.classes

    def source_names(self, numbers: Any) -> list[str]:
        """The files that these records came from, relative to the folder that was dumped, as the index has them.

        numbers: record numbers, of shape (n,), as `return_index=True` gives them. Raises ValueError without an index.
        """
        return self._reader.source_names(numbers)

    # --- the chain

    @property
    def _ranks(self) -> Ranks:
        return self._asked_ranks()

    @property
    def _pointers(self) -> DataFlow:
        """This rank's pointers, which the first use of the loader makes."""
        ranks = self._ranks  # each time: torch.distributed may say otherwise by now
        if self._own_pointers is None:
            pointers = pointers_of(self._reader.store, self._order, self._epoch, ranks)
            self._refuse_nothing(pointers)
            self._own_pointers = pointers
        return self._own_pointers

    @property
    def dataflow(self) -> DataFlow:
        """The chain itself, whose datapoints are numpy arrays. It is another one after `transform` was set."""
        pointers = self._pointers
        if self._chain is None:
            self._chain = decoded(pointers, self._reader, self._decoding, self._epoch, self._meter,
                                  self._to_torch.needs_pointers)
            self._at_work = self._chain.num_threads if isinstance(self._chain, DecodeBatches) else self.num_workers
            self._chain.reset_state()
        return self._chain

    def pointers(self, epoch: int) -> DataFlow:
        """The batches of epoch number `epoch` as `[numbers, positions]`: lists of record numbers in the order of the
        keys, and of places in the epoch. Nothing is read, and where the loader is in its own epochs does not change.
        """
        store = self._reader.store
        pointers, own = copy.deepcopy((self._pointers, self._epoch), {id(store): store})
        own.go_to(integer("epoch", epoch, 0))
        return batches_of(pointers, own, self._decoding.batch_size, self._decoding.drop_last)

    @property
    def records(self) -> np.ndarray:
        """The record of each sample of an epoch, over all ranks and before any shuffle: int64 of shape (n,)."""
        return self._order.records(self._reader.store)

    @property
    def world_size(self) -> int:
        """How many ranks share an epoch."""
        return self._ranks.world_size

    @fixed_property
    def labels(self) -> np.ndarray:
        """The class number of each record of the file, int64 (n,); or vectors, float32 (n, k).

        Without an index, the whole file is read once, with a warning.
        """
        return self._reader.labels()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self._reader.store.index is not None:  # which a copy reads again; without one, that would be the whole file
            state.pop("labels", None)
        return state

    def __len__(self) -> int:
        return len(self.dataflow)

    # --- iteration

    def __getitem__(self, number: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} gives whole batches: iterate over it. torch's DataLoader takes "
                        f"LMDBDataset or LMDBIterDataset")

    def __iter__(self) -> Generator[Batch, None, None]:
        self._iterations.check_open()
        self._pointers  # noqa: B018  # which rank this is, is asked now
        return self._iterations.begin(lambda: (self.dataflow, self._to_torch))

    def stats(self) -> Stats:
        """Where the time of the latest iteration went so far: whether training waits for data, and why.

        `print(loader.stats())` says it in words; `progress_bar.set_postfix_str(loader.stats().line)` in a few. Reading
        the clocks for it costs less than 0.3 us an image, and it is always on.
        """
        return self._meter.stats(max(1, self._at_work), self._decoding.worker_type == "process")

    # --- state

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch`, an integer of at least 0, from its start.

        After load_state_dict, naming the epoch that was loaded keeps the place in it.
        """
        self._iterations.go_to_epoch(integer("epoch", epoch, 0))

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is: what load_state_dict of a loader of the same file and order goes on from.

        A small dict of plain numbers and texts, right after any batch, whatever is being prefetched. It says which
        samples were yielded, not which were trained on. Take it on one rank or on all: it is the same on each, if each
        has yielded equally many batches.
        """
        return saved(self._iterations.place, self._ranks.world_size, self._description)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on where `state` was taken, with the same batches as without interruption.

        The number and type of workers may differ, and batch_size and transform too, of course with other batches. With
        another world_size, each of the epoch's samples that are left is seen once (or as `uneven` says); the epochs
        after it are those of the new world_size. Raises ValueError if the state is of another file or order.
        """
        world_size = self._ranks.world_size
        most = (len(self._pointers) + 1) * world_size  # "drop" may have left out one of each rank
        self._iterations.go_to(restored(state, world_size, self._description, most))

    # --- the end

    def close(self) -> None:
        """Ends running iterations with their threads, and lets go of the file. Closing twice is fine."""
        self._iterations.close()
        self._reader.store.close()

    def __enter__(self) -> "TorchBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
