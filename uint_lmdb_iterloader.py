"""Reads an LMDB of images in the order of its file, shuffled within a buffer.

LMDBIterLoader decodes in threads and yields batches of torch tensors. LMDBIterDataset is an iterable dataset for
torch's own DataLoader, which its workers share out among themselves.
"""
import os
from typing import Any, Callable, Mapping, Sequence

import torch
from torch.utils.data import IterableDataset, get_worker_info

from dataflows.images.codecs import MAX_PIXELS
from dataflows.images.pipeline import Transform
from dataflows.load.chain import PREFETCH, Decoding, pointers_of
from dataflows.load.dataset import SampleIterator, Samples
from dataflows.load.decode.reader import RecordReader
from dataflows.load.late_ranks import LateRanks
from dataflows.load.loader import TorchBatches
from dataflows.load.to_torch import ToTorch
from dataflows.load.workers.shared_memory import SharedNumber
from dataflows.options import integer, suggests
from dataflows.order.epoch import Epoch
from dataflows.order.order import Order, sequential_kind
from dataflows.order.pointers import checked_indices
from dataflows.order.ranks import Ranks
from dataflows.storage.shards.files import PathLike
from dataflows.storage.store import Store
from dataflows.tensorpack import DataFlow

__all__ = ["LMDBIterDataset", "LMDBIterLoader"]


class LMDBIterLoader(TorchBatches):
    """Batches of an LMDB's images in the order of the file, shuffled within a buffer.

    The order is a function of (seed, epoch). Each iteration is one epoch, and the next one is the next epoch unless
    set_epoch says otherwise; leaving one early is fine. `len` is the exact number of batches of a whole epoch. A batch
    is the caller's own: it is never overwritten while any part of it is referenced. `dataflow` is the chain itself,
    whose datapoints are numpy arrays. A loader pickles at any time; its running iterations are no part of the copy.

    Args:
        path: The LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it; or several that are read as
            one: the manifest of a dump in shards, a list, or a pattern such as "DIR/train-*.lmdb". Their records,
            batches and states are those of one file with the records of all. Each may be a URL, such as
            s3://bucket/train.lmdb, but for a pattern: docs/remote.md.
        batch_size: Images per batch, of each rank.
        order: "local" reads in the order of the file and shuffles within a buffer: the dump has already permuted a
            train split, so this only has to make epochs differ. "block" permutes blocks of `block_size` consecutive
            records and then shuffles within the buffer: for files that are sorted, and for mixing more from epoch to
            epoch, at nearly sequential speed. "shard" permutes the files of a data set that has several, and then
            shuffles within the buffer: whole files are read one after the other. "sequential" keeps the order of the
            file.
        shuffle_buffer: How many records the shuffle mixes. It holds pointers, no pixels: 50,000 take about 8 MB, and
            the first batch comes at once. 0 shuffles nothing but blocks.
        block_size: Records in a block of order="block".
        seed: What the shuffle and the crops are a function of, together with the epoch: an integer from 0 to 2**128.
        rank: Of this process in distributed training, with world_size. By default torch.distributed is asked, if it is
            initialized by the time that the loader is first used, by iter, len, state_dict or the like: the loader may
            be made before. If torch.distributed says otherwise later, that is a RuntimeError. Each rank reads one
            range of the file, another in each epoch.
        world_size: How many ranks there are, with rank.
        uneven: What ranks do with a number of samples that they do not divide. "pad" repeats some, as
            DistributedSampler does. "drop" leaves some out. "keep" does neither, so batch counts may differ by
            one. By default "keep" for the sequential order, else "pad".
        indices: Which records make an epoch, an integer array of shape (n,). A record may come several times, so
            drawing records with weights balances classes. By default all, once.
        repeats: How often each comes in a row, with another crop each time: repeated augmentation.
        partition: "rotate" gives each rank other records in every epoch. "pinned" gives it the same range of the file
            in all of them, in another order each time, so that a cache on its machine has them from the second epoch
            on; it then mixes its own records only.
        io: "mmap" reads through a memory map. "pread" copies records, which suits network file systems, and maps
            nothing. "auto" chooses, and copies where the system does not map the file.
        cache: "drop" takes records out of the page cache after use, for files larger than memory. "keep" leaves them.
        verify: Compare each record that is read with its checksum, and raise RecordError, with file and key, if it
            differs: about 0.5 ms of processor time per MB.
        storage_options: How to reach a path that is a URL, as fsspec takes it: a mapping, of s3:// for instance key,
            secret, token, endpoint_url, anon. By default None: the environment says it. Worker processes get it as it
            was given, and no message shows it.
        cache_dir: A folder of this machine in which files at URLs are kept, whole: fetched while they are read, and
            read from there as soon as they are complete. By default None: they are read by ranges.
        cache_bytes: How many bytes `cache_dir` may have. A file that does not fit is read by ranges; none is removed
            for it. By default None: as many as the disk has room for.
        max_pixels: How many pixels an image may have by its header. More are an error, which bounds memory for hostile
            files.
        array_layout: "CHW" for files of other writers that store arrays of pixels so; by default "HWC".
        array_channels: "BGR" for files of other writers that store arrays of pixels so; by default "RGB".
        transform: RandomResizedCrop or CenterCrop, which are fused into decoding; or a list or Compose whose first is
            one of them, the rest of which runs for each image in the workers; or a pipeline of torchvision or timm as
            it is, whose crop and flip are fused into decoding, and whose ToDtype and Normalize are done per batch,
            where they can be; or any callable on an image of `image_type`; or None for whole images.
            `print(loader.transform)` shows what is fused, and what is not.
        image_type: What callables of `transform` get: "numpy" for a uint8 array of shape (H, W, 3), "tensor" for a
            uint8 torch tensor of shape (3, H, W), "pil" for a PIL image; RGB in each case. By default "numpy" for a
            single callable; "tensor" in a list or Compose, and "pil" where it converts PIL images to tensors later.
        target_transform: A callable on the label of each image, an int or a float32 array of shape (k,). It is called
            in worker processes, or in the thread that asks for the batch. Its results are collated as torch's
            DataLoader does it.
        num_workers: Threads or processes that read and decode; 0 decodes in the caller. By default one per processor,
            or one rank's share of the processors where several ranks are known to run on this machine: by torchrun, or
            by torch.distributed with a MASTER_ADDR of localhost. Of threads with a fused transform, no more run than
            there are processors.
        worker_type: "thread", or "process" for a transform in Python that holds the GIL. Batches are the same, but for
            what a callable draws at random: processes seed the global generators of Python, numpy and torch for each
            image, by (seed, epoch, position), so that any number of processes draws the same. Threads share those of
            the program.
        drop_last: Leave out the last batch if it is smaller than `batch_size`.
        prefetch: Batches that may be decoded ahead of the one in use, of each process if workers are processes. Each
            costs its own size in memory.
        device: Where the tensors go, as torch names it. None leaves them in host memory. This and what follows is done
            once per batch, by the thread that asks for it.
        pin_memory: Copy the batch into page-locked memory, from which it is transferred while the loop goes on. Without
            `device` this does nothing, and without CUDA it gives nothing but a warning.
        normalize: (mean, std) of three numbers each, on the scale of 0 to 1 as torchvision's: (x / 255 - mean) / std.
            Done after the transfer, as is `dtype`.
        dtype: Of the images. A floating dtype means 0 to 1 (or normalized), as torchvision's ToDtype(scale=True) has
            it. None means uint8, or float32 with `normalize`.
        channels_last: Images in torch.channels_last memory format.
        batch_transform: A callable on (images, labels) of each batch, as MixUp and CutMix are, which returns both. It
            is called at last, with tensors on their device. What it draws from the global generators of Python, numpy
            and torch is a function of (seed, epoch, position), and these go on afterwards as if it had not drawn.
        return_index: Yield `(images, labels, numbers)`, with the record numbers: int64 of shape (B,), in host memory.
            `loader.source_names(numbers)` says which images these were.

    Yields:
        `(images, labels)`, torch tensors, or `(images, labels, numbers)`. labels: int64 of shape (B,), or float32 of
        shape (B, k) where they are vectors. images: uint8 of shape (B, 3, h, w) in RGB, 0 to 255; or float32 where
        `transform` ends with ToDtype or Normalize. Where `transform` gives images of different shapes, as None does for
        photos, images are a list of B tensors of shape (3, H, W).

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is truncated, not an LMDB, or has a wrong index; or an option is wrong: the message names it, its
            rule and the remedy.
        OSError: It cannot be opened or, with io="mmap" or without an index, not mapped; or a request to a URL failed.
        RecordError: While iterating, at the sample's place in the order: a record cannot be read. The message names
            file and key.
        TypeError: An option is unknown, or of a wrong type.
        ImportError: A package is missing that URLs of this kind need; the message names it.

    Example:
        >>> from dataflows import RandomResizedCrop
        >>> loader = LMDBIterLoader("train.lmdb", 8, transform=RandomResizedCrop(224), num_workers=2, shuffle_buffer=16)
        >>> for images, labels in loader:
        ...     pass
        >>> len(loader), images.shape
        (3, torch.Size([7, 3, 224, 224]))
        >>> loader.close()
    """

    @suggests
    def __init__(self, path: PathLike | Sequence[PathLike], batch_size: int, *, order: str = "local",
                 shuffle_buffer: int = 50_000, block_size: int = 256, seed: int = 0, rank: int | None = None,
                 world_size: int | None = None, uneven: str | None = None, indices: Any = None, repeats: int = 1,
                 partition: str = "rotate", io: str = "auto", cache: str = "keep", verify: bool = False,
                 storage_options: Mapping[str, Any] | None = None,
                 cache_dir: str | os.PathLike[str] | None = None, cache_bytes: int | None = None,
                 max_pixels: int = MAX_PIXELS, array_layout: str = "HWC", array_channels: str = "RGB",
                 transform: Transform | None = None, num_workers: int | None = None, worker_type: str = "thread",
                 drop_last: bool = False, prefetch: int = PREFETCH, device: torch.device | str | None = None,
                 pin_memory: bool = False, normalize: tuple[Any, Any] | None = None,
                 dtype: torch.dtype | None = None, channels_last: bool = False, image_type: str | None = None,
                 target_transform: Callable[[Any], Any] | None = None,
                 batch_transform: Callable[[Any, Any], Any] | None = None, return_index: bool = False) -> None:
        store = Store(path, io=io, cache=cache, verify=verify, storage_options=storage_options, cache_dir=cache_dir,
                      cache_bytes=cache_bytes)
        super().__init__(
            RecordReader(store, array_layout=array_layout, array_channels=array_channels, max_pixels=max_pixels),
            Order(sequential_kind(order), seed, shuffle_buffer, block_size, checked_indices(indices, store), repeats,
                  partition),
            LateRanks(rank, world_size, uneven or ("keep" if order == "sequential" else "pad")),
            Decoding(batch_size, drop_last, transform, channels_last, num_workers, worker_type, prefetch, image_type,
                     target_transform),
            ToTorch(device, pin_memory, normalize, dtype, channels_last, batch_transform, return_index))


class LMDBIterDataset(Samples, IterableDataset[tuple[Any, Any]]):
    """An iterable dataset in the order of the file: each rank, and each worker of a DataLoader, reads one part of it.

    `len` is this rank's number of samples. The order is that of epoch 0 until set_epoch changes it, also for the
    workers of a DataLoader with persistent_workers=True: frameworks that call set_epoch of a sampler find none here.
    torchdata's StatefulDataLoader saves and restores the place of each worker. A dataset pickles and forks: each
    process opens the file for itself.

    Args:
        path: The LMDB, as dump_imagenet.py or tensorpack's LMDBSerializer.save writes it; or several that are read as
            one: the manifest of a dump in shards, a list, or a pattern such as "DIR/train-*.lmdb". Their records,
            batches and states are those of one file with the records of all. Each may be a URL, such as
            s3://bucket/train.lmdb, but for a pattern: docs/remote.md.
        order: "local" reads in the order of the file and shuffles within a buffer: the dump has already permuted a
            train split, so this only has to make epochs differ. "block" permutes blocks of `block_size` consecutive
            records and then shuffles within the buffer: for files that are sorted, and for mixing more from epoch to
            epoch, at nearly sequential speed. "shard" permutes the files of a data set that has several, and then
            shuffles within the buffer: whole files are read one after the other. "sequential" keeps the order of the
            file.
        shuffle_buffer: How many records the shuffle mixes. It holds pointers, no pixels: 50,000 take about 8 MB, and
            the first sample comes at once. 0, the default, shuffles nothing but blocks.
        block_size: Records in a block of order="block".
        seed: What the shuffle is a function of, together with the epoch: an integer from 0 to 2**128.
        rank: Of this process in distributed training, with world_size. By default torch.distributed is asked, if it is
            initialized by the time that the dataset is first used, by iter, len or the like: the dataset may be
            made before. If torch.distributed says otherwise later, that is a RuntimeError. Each rank reads
            one range of the file, another in each epoch.
        world_size: How many ranks there are, with rank.
        uneven: What ranks do with a number of samples that they do not divide. "pad" repeats some, as
            DistributedSampler does. "drop" leaves some out. "keep" does neither, so their numbers of samples may differ
            by one. By default "pad" where something is shuffled, else "keep".
        indices: Which records make an epoch, an integer array of shape (n,). A record may come several times, so
            drawing records with weights balances classes. By default all, once.
        repeats: How often each comes in a row, with another crop each time: repeated augmentation.
        partition: "rotate" gives each rank other records in every epoch. "pinned" gives it the same range of the file
            in all of them, in another order each time, so that a cache on its machine has them from the second epoch
            on; it then mixes its own records only.
        transform: As that of the loaders: RandomResizedCrop or CenterCrop, which are fused into decoding; or a list or
            Compose whose first is one of them; or a pipeline of torchvision or timm as it is; or any callable on an
            image of `image_type`; or None for whole images. Crops draw from torch's generator, which DataLoader seeds
            anew in each worker and epoch; so a resumed StatefulDataLoader repeats the samples, but not the crops.
            `print(dataset.transform)` shows what is fused, and what is not. May be set later.
        target_transform: A callable on the label: a class number, an int; or a vector, a float32 array of shape (k,).
            Without it, a vector is a tensor.
        image_type: What an image is, without a transform and for its callables: "tensor" for a uint8 torch tensor of
            shape (3, H, W), "numpy" for a uint8 array of shape (H, W, 3), "pil" for a PIL image; RGB in each case. By
            default "pil" in a list or Compose that converts PIL images to tensors, else "tensor". May be set later.
        return_index: Give `(image, target, number)`, with the number of the record.
        io: "mmap" reads through a memory map. "pread" copies records, which suits network file systems, and maps
            nothing. "auto" chooses, and copies where the system does not map the file.
        verify: Compare each record that is read with its checksum, and raise RecordError, with file and key, if it
            differs: about 0.5 ms of processor time per MB.
        storage_options: How to reach a path that is a URL, as fsspec takes it: a mapping, of s3:// for instance key,
            secret, token, endpoint_url, anon. By default None: the environment says it. Worker processes get it as it
            was given, and no message shows it.
        cache_dir: A folder of this machine in which files at URLs are kept, whole: fetched while they are read, and
            read from there as soon as they are complete. By default None: they are read by ranges.
        cache_bytes: How many bytes `cache_dir` may have. A file that does not fit is read by ranges; none is removed
            for it. By default None: as many as the disk has room for.
        max_pixels: How many pixels an image may have by its header. More are an error, which bounds memory for hostile
            files.
        array_layout: "CHW" for files of other writers that store arrays of pixels so; by default "HWC".
        array_channels: "BGR" for files of other writers that store arrays of pixels so; by default "RGB".

    Yields:
        `(image, target)`, every record once over all ranks and workers.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is truncated, not an LMDB, or has a wrong index; or an option is wrong.
        OSError: It cannot be opened or, with io="mmap" or without an index, not mapped; or a request to a URL failed.
        RecordError: While iterating: a record cannot be read. The message names file and key.
        TypeError: An option is unknown, or of a wrong type.
        ImportError: A package is missing that URLs of this kind need; the message names it.

    Example:
        >>> targets = [target for image, target in LMDBIterDataset("val.lmdb")]
        >>> len(targets), targets[0], targets[-1]
        (10, 0, 2)
    """

    @suggests
    def __init__(self, path: PathLike | Sequence[PathLike], *, order: str = "local", shuffle_buffer: int = 0,
                 block_size: int = 256, seed: int = 0, rank: int | None = None, world_size: int | None = None,
                 uneven: str | None = None, indices: Any = None, repeats: int = 1, partition: str = "rotate",
                 transform: Transform | None = None,
                 target_transform: Callable[[Any], Any] | None = None, image_type: str | None = None,
                 return_index: bool = False, array_layout: str = "HWC", array_channels: str = "RGB", io: str = "auto",
                 verify: bool = False, storage_options: Mapping[str, Any] | None = None,
                 cache_dir: str | os.PathLike[str] | None = None, cache_bytes: int | None = None,
                 max_pixels: int = MAX_PIXELS) -> None:
        store = Store(path, io=io, verify=verify, storage_options=storage_options, cache_dir=cache_dir,
                      cache_bytes=cache_bytes)
        super().__init__(
            RecordReader(store, array_layout=array_layout, array_channels=array_channels, max_pixels=max_pixels),
            transform, target_transform, image_type, return_index)
        self._own_order = Order(sequential_kind(order), seed, shuffle_buffer, block_size,
                                checked_indices(indices, store), repeats, partition)
        shuffled = order in ("block", "shard") or self._own_order.buffer_size
        self._asked_ranks = LateRanks(rank, world_size, uneven or ("pad" if shuffled else "keep"))
        self._description = self._own_order.description(store, self._asked_ranks.uneven)
        self._count = self._own_order.count(store)
        self._epoch_number = SharedNumber()  # where workers that live on see the change

    @property
    def _ranks(self) -> Ranks:
        return self._asked_ranks()

    def __len__(self) -> int:
        return self._ranks.size(self._count)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration epoch number `epoch`, an integer of at least 0."""
        self._epoch_number.value = integer("epoch", epoch, 0)

    def _pointers(self, number: int, part: int, parts: int) -> DataFlow:
        epoch = Epoch(self._own_order.seed)
        epoch.go_to(number)
        return pointers_of(self._store, self._own_order, epoch, self._ranks, (part, parts))

    def __iter__(self) -> SampleIterator:
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        return SampleIterator(self._samples, self._at_once, self._pointers, self._description, self._ranks.world_size,
                              self._epoch_number.value, part, parts)
