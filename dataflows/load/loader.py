"""From a chain of DataFlows to what a training loop iterates over: torch tensors on its device."""
import contextlib
import copy
import math
import time
import weakref
from typing import Any, Generator, NoReturn, Protocol

import numpy as np
import torch

from dataflows.images.transforms import check_transform, is_fused
from dataflows.load.decode_batches import DecodeBatches, EveryNthBatch, Transform
from dataflows.load.meter import Meter
from dataflows.load.prefetch import AHEAD_BYTES, PrefetchPages
from dataflows.load.reader import RecordReader
from dataflows.load.stats import Stats
from dataflows.load.to_torch import Batch, Finish
from dataflows.load.workers.parent import RoundRobinProcesses
from dataflows.options import check_state, fixed_property, integer, suggests
from dataflows.order.epoch import Epoch
from dataflows.order.local_shuffle import FiniteLocallyShuffleData, RestOfEpoch
from dataflows.order.ranks import Done, LateRanks, Ranks, check_done
from dataflows.processors import default_workers, ranks_here
from dataflows.tensorpack import BatchData, DataFlow

Position = tuple[int, Done, int]  # epoch, its interruptions, samples of this rank since then


class Pointers(Protocol):
    """Makes the chain of pointers of a rank, and a description of its order: see keys.py. Must pickle."""

    def __call__(self, *, ranks: Ranks) -> tuple[DataFlow, dict[str, int | str]]: ...


class EpochSampler:
    """What stands for a loader's sampler where a framework looks for one to tell it the epoch, as Lightning does."""

    def __init__(self, loader: "TorchBatches") -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """As that of the loader."""
        self._loader.set_epoch(epoch)


class TorchBatches:
    """Iterates over `(images, labels)`, torch tensors; the base of LMDBLoader and LMDBIterLoader, and their options.

    labels: int64 of shape (B,). images: uint8 of shape (B, 3, h, w) in RGB, 0 to 255. Where `transform` gives images
    of different shapes, as None does for photos, they are a list of B tensors of shape (3, H, W).

    transform: RandomResizedCrop or CenterCrop, which are fused into decoding; or a callable on a uint8 RGB array of
        shape (H, W, 3), which runs in the worker threads; or None for whole images.
    num_workers: threads or processes that read and decode; 0 decodes in the caller. By default one per processor, or
        one rank's share of the processors where several ranks are known to run on this machine: by torchrun, or by
        torch.distributed with a MASTER_ADDR of localhost. Of threads with a fused transform, no more run than there are
        processors.
    worker_type: "thread", or "process" for a transform in Python that holds the GIL. Batches are the same, but for what
        a callable draws at random: processes seed the global generators of Python, numpy and torch for each image, by
        (seed, epoch, position), so that any number of processes draws the same; threads share those of the program.
    drop_last: leave out the last batch if it is smaller than `batch_size`.
    prefetch: batches that may be decoded ahead of the one in use, of each process if workers are processes. Each costs
        its own size in memory.
    array_layout, array_channels: "CHW" and "BGR" for files of other writers that store arrays so.

    What follows is done once per batch, by the thread that asks for it; `normalize` and `dtype` after the transfer:

    device: where the tensors go, as torch names it; None leaves them in host memory.
    pin_memory: copy the batch into page-locked memory, from which it is transferred while the loop goes on; nothing
        without `device`, and without CUDA nothing but a warning.
    normalize: (mean, std) of three numbers each, on the scale of 0 to 1 as torchvision's: (x / 255 - mean) / std.
    dtype: of the images. A floating dtype means 0 to 1 (or normalized), as torchvision's ToDtype(scale=True) has it;
        None means uint8, or float32 with `normalize`.
    channels_last: images in torch.channels_last memory format.

    The order is a function of (seed, epoch). Each iteration is one epoch, and the next one is the next epoch unless
    set_epoch says otherwise; leaving one early is fine. `len` is the exact number of batches of a whole epoch. A batch
    is the caller's own: it is never overwritten while any part of it is referenced. `dataflow` is the chain itself,
    whose datapoints are numpy arrays. A loader pickles at any time; its running iterations are no part of the copy.

    Errors name the option, its rule and the remedy; those of data name file and key, and are raised at the sample's
    place in the order.
    """

    @suggests
    def __init__(self, pointers: Pointers, reader: RecordReader, epoch: Epoch, ranks: LateRanks, /,
                 batch_size: int, *, transform: Transform | None = None,
                 num_workers: int | None = None, worker_type: str = "thread", drop_last: bool = False,
                 prefetch: int = 2, device: torch.device | str | None = None, pin_memory: bool = False,
                 normalize: tuple[Any, Any] | None = None, dtype: torch.dtype | None = None,
                 channels_last: bool = False) -> None:
        self._batch_size = integer("batch_size", batch_size, 1)
        self._prefetch = integer("prefetch", prefetch, 1)
        self._num_workers = None if num_workers is None else integer("num_workers", num_workers, 0)
        if worker_type not in ("thread", "process"):
            raise ValueError(f"worker_type must be 'thread' or 'process', not {worker_type!r}")
        if worker_type == "process" and num_workers == 0:
            raise ValueError("worker_type='process' needs num_workers of at least 1")
        self._worker_type = worker_type
        self._channels_last = channels_last
        self._drop_last = drop_last
        self._finish = Finish(device, pin_memory, normalize, dtype, channels_last)
        self._epoch = epoch
        self._reader = reader
        self._asked_ranks = ranks
        self._pointers = pointers
        # Refuses wrong options here; which rank this is need not be known yet.
        whole, self._order = pointers(ranks=ranks() if ranks.given else Ranks(0, 1, ranks.uneven))
        self._refuse_nothing(whole)
        self._at: Position = (0, (), 0)
        self._meter = Meter()
        self._running: list[weakref.ref[Generator[Batch, None, None]]] = []
        self._closed = False
        self._own_batches: BatchData | None = None
        self._at_work = self.num_workers
        self.transform = transform

    def _refuse_nothing(self, pointers: DataFlow) -> None:
        if len(pointers) < (self.batch_size if self._drop_last else 1):
            raise ValueError(f"nothing is left of {len(pointers)} samples per rank with batch_size={self.batch_size}, "
                             f"drop_last={self._drop_last} and uneven={self._asked_ranks.uneven!r}; use a smaller "
                             f"batch_size, drop_last=False or uneven='pad'")

    @property
    def batch_size(self) -> int:
        """Images per batch, of each rank; fixed, as in torch's DataLoader."""
        return self._batch_size

    @property
    def num_workers(self) -> int:
        """How many threads or processes were asked for, or the default."""
        return default_workers() if self._num_workers is None else self._num_workers

    @property
    def sampler(self) -> EpochSampler:
        """Has set_epoch, for frameworks that call that of a loader's sampler only, as Lightning does."""
        return EpochSampler(self)

    @property
    def batch_sampler(self) -> None:
        """None, which Lightning asks for where there is a sampler: it is as in a DataLoader that does not batch."""

    @property
    def transform(self) -> Transform | None:
        """What is done to each image. A new one takes effect with the next iteration: resolution may grow by epochs."""
        return self._transform

    @transform.setter
    def transform(self, transform: Transform | None) -> None:
        check_transform(transform)
        self._transform = transform
        self._chain: DataFlow | None = None

    @property
    def _ranks(self) -> Ranks:
        return self._asked_ranks()

    @property
    def _batches(self) -> BatchData:
        """Batches of this rank's pointers, which the first use of the loader makes."""
        ranks = self._ranks  # each time: torch.distributed may say otherwise by now
        if self._own_batches is None:
            pointers, _ = self._pointers(ranks=ranks)
            self._refuse_nothing(pointers)
            self._own_batches = BatchData(RestOfEpoch(pointers, self._epoch), self.batch_size,
                                          remainder=not self._drop_last, use_list=True)
        return self._own_batches

    @property
    def dataflow(self) -> DataFlow:
        """The chain itself, whose datapoints are numpy arrays. It is another one after `transform` was set."""
        batches = self._batches
        if self._chain is None:
            self._chain = self._decoded(batches)
            self._chain.reset_state()
        return self._chain

    def _decoded(self, batches: BatchData) -> DataFlow:
        pointers, num_workers = batches.ds.ds, self.num_workers
        largest = min(self.batch_size, len(pointers))
        ahead_bytes = AHEAD_BYTES // ranks_here()

        def decoded(batches: DataFlow, num_threads: int, prefetch: int, sharers: int, seeds: bool) -> DecodeBatches:
            fetched = PrefetchPages(batches, self._reader.store, self._meter, ahead_bytes // sharers, every=sharers,
                                    shuffle=pointers if isinstance(pointers, FiniteLocallyShuffleData) else None)
            return DecodeBatches(fetched, self._reader, self._transform, self._epoch, batch_size=largest,
                                 num_threads=num_threads, prefetch=prefetch, meter=self._meter,
                                 channels_last=self._channels_last, seeds=seeds)

        if self._worker_type == "thread":
            chain = decoded(batches, num_workers, self._prefetch, 1, False)
            self._at_work = chain.num_threads
            return chain
        parts = [decoded(EveryNthBatch(batches, i, num_workers), 0, 1, num_workers, True) for i in range(num_workers)]
        batch_bytes = largest * 3 * math.prod(self._transform.window) if is_fused(self._transform) else 0
        return RoundRobinProcesses(batches, parts, self._prefetch, self._meter, batch_bytes)

    def pointers(self, epoch: int) -> DataFlow:
        """The batches of epoch number `epoch` as `[numbers, positions]`: lists of record numbers in the order of the
        keys, and of places in the epoch. Nothing is read, and where the loader is in its own epochs does not change.
        """
        batches, own = copy.deepcopy((self._batches, self._epoch), {id(self._reader.store): self._reader.store})
        own.go_to(integer("epoch", epoch, 0))
        return batches

    @fixed_property
    def labels(self) -> np.ndarray:
        """The class number of each record of the file. Without an index, the whole file is read once, with a warning.
        """
        return self._reader.labels()

    def __len__(self) -> int:
        return len(self.dataflow)

    def __getitem__(self, number: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} gives whole batches: iterate over it. torch's DataLoader takes "
                        f"LMDBDataset or LMDBIterDataset")

    def __iter__(self) -> Generator[Batch, None, None]:
        if self._closed:
            raise RuntimeError("the loader is closed; make a new one to iterate again")
        self._batches  # noqa: B018  # which rank this is, is asked now
        batches = self._iterate()
        self._running = [*filter(lambda ref: ref() is not None, self._running), weakref.ref(batches)]
        return batches

    def _iterate(self) -> Generator[Batch, None, None]:
        epoch, meter, clock = self._epoch, self._meter, time.perf_counter
        number, done, samples = epoch.number, epoch.done, epoch.skip
        started = False
        meter.begin()
        asked_at = clock()
        with contextlib.closing(iter(self.dataflow)) as batches:
            for images, labels in batches:
                got_at = clock()
                meter.waited(got_at - asked_at)
                if not started:  # every component has read the epoch by now
                    epoch.go_to(number + 1)
                    started = True
                samples += len(labels)
                self._at = number, done, samples
                batch = self._finish(images, labels)
                ready_at = clock()
                meter.finished(ready_at - got_at, len(labels))
                yield batch
                if self._closed:
                    return
                del images, labels, batch  # or their memory could not be used for the next batch
                asked_at = clock()
                meter.consumed(asked_at - ready_at)
        if not started:  # nothing was left of it
            epoch.go_to(number + 1)
        self._at = epoch.number, epoch.done, epoch.skip

    def stats(self) -> Stats:
        """Where the time of the latest iteration went so far: whether training waits for data, and why.

        `print(loader.stats())` says it in words; `progress_bar.set_postfix_str(loader.stats().line)` in a few. Reading
        the clocks for it costs less than 0.3 us an image, and it is always on.
        """
        return self._meter.stats(max(1, self._at_work), self._worker_type == "process")

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch`, an integer of at least 0, from its start.

        After load_state_dict, naming the epoch that was loaded keeps the place in it.
        """
        epoch = integer("epoch", epoch, 0)
        if epoch != self._epoch.number:
            self._epoch.go_to(epoch)
        self._at = epoch, self._epoch.done, self._epoch.skip

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is: what load_state_dict of a loader of the same file and order goes on from.

        A small dict of plain numbers and texts, right after any batch, whatever is being prefetched. It says which
        samples were yielded, not which were trained on. Take it on one rank or on all: it is the same on each, if each
        has yielded equally many batches.
        """
        number, done, samples = self._at
        return {"version": 1, "epoch": number, "done": [list(pair) for pair in done], "samples": samples,
                "world_size": self._ranks.world_size, "order": dict(self._order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on where `state` was taken, with the same batches as without interruption.

        The number and type of workers may differ, and batch_size and transform too, of course with other batches. With
        another world_size, each of the epoch's samples that are left is seen once (or as `uneven` says); the epochs
        after it are those of the new world_size. Raises ValueError if the state is of another file or order.
        """
        check_state(state, self._order, ("epoch", "done", "samples", "world_size"))
        number, samples = integer("epoch", state["epoch"], 0), integer("samples", state["samples"], 0)
        world_size = integer("world_size", state["world_size"], 1)
        try:
            done = tuple((integer("world_size", ranks, 1), integer("samples", each, 0))
                         for ranks, each in list(state["done"]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"the state's done must be a list of pairs of integers, not {state['done']!r}") from error
        most = (len(self._batches.ds) + 1) * self._ranks.world_size  # "drop" may have left out one of each rank
        check_done(most, (*done, (world_size, samples)))
        if world_size != self._ranks.world_size and samples:
            done, samples = (*done, (world_size, samples)), 0
        self._epoch.go_to(number, done, samples)
        self._at = number, done, samples

    def close(self) -> None:
        """Ends running iterations with their threads, and lets go of the file. Closing twice is fine."""
        self._closed = True
        for batches in [ref() for ref in self._running]:
            with contextlib.suppress(ValueError):  # another thread is in it, and ends it after its next batch
                if batches is not None:
                    batches.close()
        self._reader.store.close()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_running": []}  # a copy has no iterations yet
        if "labels" in state and self._reader.store.index is not None:  # without one, all records would be read again
            del state["labels"]
        return state

    def __enter__(self) -> "TorchBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
