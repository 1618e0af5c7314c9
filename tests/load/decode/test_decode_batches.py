"""From pointers to pixels: shapes, memory order, slots that are filled in parallel, memory that is used again."""
import gc
import threading

import numpy as np
import pytest
from PIL import Image
from tensorpack.dataflow import DataFromList

from dataflows.images.image_types import planar
from dataflows.images.pipeline import pipeline_of
from dataflows.images.transforms import CenterCrop, RandomResizedCrop
from dataflows.load.decode.crops import Crops
from dataflows.load.decode.decode_batches import DecodeBatches
from dataflows.load.decode.reader import RecordReader
from dataflows.load.meter import Meter
from dataflows.order.epoch import Epoch
from dataflows.order.pointers import SequentialKeys
from dataflows.storage.store import Store
from dataflows.tensorpack import BatchData
from helpers.dataflow_contract import frozen, threads


@pytest.fixture
def chain(uint8_lmdb):
    """Makes a DecodeBatches over train.lmdb in the order of the file."""
    def make(transform, batch_size=4, num_threads=2, prefetch=2, epoch=None, **options):
        store, epoch = Store(uint8_lmdb / "train.lmdb"), epoch or Epoch(0)
        batches = BatchData(SequentialKeys(store, epoch), batch_size, remainder=True, use_list=True)
        return DecodeBatches(batches, RecordReader(store), pipeline_of(transform, None, "numpy"), epoch,
                             batch_size=batch_size, num_threads=num_threads,
                             prefetch=prefetch, meter=Meter(), **options)
    return make


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("transform", [RandomResizedCrop((20, 24)), CenterCrop((20, 24), 32)])
def test_crops_fill_one_array(chain, transform, channels_last):
    ds = chain(transform, channels_last=channels_last)
    batches = list(ds)
    assert len(batches) == len(ds) == 6
    for number, [images, labels] in enumerate(batches):
        count = 4 if number < 5 else 3
        assert images.dtype == np.uint8 and images.shape == (count, 3, 20, 24)
        assert (images.transpose(0, 2, 3, 1) if channels_last else images).flags.c_contiguous
        assert labels.dtype == np.int64 and labels.shape == (count,)


def test_memory_order_does_not_change_pixels(chain):
    first, last = (np.concatenate([images for images, _ in chain(RandomResizedCrop(20), channels_last=channels_last)])
                   for channels_last in (False, True))
    assert (first == last).all()


@pytest.mark.parametrize("batch_size", [1, 3, 23, 50])
@pytest.mark.parametrize("num_threads", [0, 1, 2, 8])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_pixels_depend_on_the_position_and_on_nothing_else(chain, batch_size, num_threads, prefetch):
    expected = np.concatenate([images for images, _ in chain(RandomResizedCrop(12), 4, 0, 1)])
    batches = list(chain(RandomResizedCrop(12), batch_size, num_threads, prefetch))
    assert (np.concatenate([images for images, _ in batches]) == expected).all()


@pytest.mark.parametrize("batch_size, num_threads, sizes", [
    (256, 1, [128, 128]), (256, 2, [128, 128]), (256, 3, [86, 86, 84]), (256, 16, [64, 64, 64, 64]),
    (150, 16, [75, 75]), (100, 16, [100]), (24, 16, [24]), (300, 2, [100, 100, 100])])
def test_threads_share_a_batch_in_parts_that_are_worth_taking(uint8_lmdb, monkeypatch, batch_size, num_threads, sizes):
    monkeypatch.setattr("dataflows.load.decode.decode_batches.usable_cpus", lambda: 16)
    store, asked = Store(uint8_lmdb / "train.lmdb"), []
    reader = RecordReader(store)

    class Asked(RecordReader):
        def read_crops(self, numbers, *args):
            asked.append(len(numbers))
            return reader.read_crops(numbers, *args)

    positions = [*range(2 * batch_size)]
    numbers = [position % len(store) for position in positions]
    batches = [[numbers[:batch_size], positions[:batch_size]], [numbers[batch_size:], positions[batch_size:]]]
    found = list(DecodeBatches(DataFromList(batches, shuffle=False), Asked(store),
                               pipeline_of(RandomResizedCrop(12), None, "numpy"), Epoch(0), batch_size=batch_size,
                               num_threads=num_threads, prefetch=2, meter=Meter()))
    assert sorted(asked) == sorted(2 * sizes)
    expected = np.empty((2 * batch_size, 3, 12, 12), np.uint8)
    labels = reader.read_crops(numbers, RandomResizedCrop(12), np.arange(2 * batch_size), 0, 0, expected).labels
    assert (np.concatenate([images for images, _ in found]) == expected).all()
    assert (np.concatenate([some for _, some in found]) == labels).all()


@pytest.mark.parametrize("most_bytes, most", [(1, 1), (2**24, 64)])
def test_few_records_are_in_memory_at_once(uint8_lmdb, monkeypatch, most_bytes, most):
    store, held = Store(uint8_lmdb / "train.lmdb", io="pread"), []
    numbers = [number % len(store) for number in range(150)]
    expected, found = np.empty((2, 150, 3, 12, 12), np.uint8)
    labels = RecordReader(store).read_crops(numbers, RandomResizedCrop(12), np.arange(150), 0, 0, expected).labels
    monkeypatch.setattr("dataflows.load.decode.reader._MOST_BYTES", most_bytes)
    many = Crops.many
    monkeypatch.setattr(Crops, "many", lambda crops, some, *args: held.append(len(some)) or many(crops, some, *args))
    done = RecordReader(store).read_crops(numbers, RandomResizedCrop(12), np.arange(150), 0, 0, found)
    assert max(held) == most and sum(held) == 150
    assert (found == expected).all() and (done.labels == labels).all()


def test_epochs_and_seeds_give_other_crops(chain):
    seen = set()
    for seed in (0, 1):
        epoch = Epoch(seed)
        for number in (0, 1):
            epoch.go_to(number)
            seen.add(frozen(next(iter(chain(RandomResizedCrop(12), epoch=epoch)))[0]))
    assert len(seen) == 4


def test_a_change_of_epoch_in_mid_iteration_is_for_the_next_iteration(chain):
    epoch = Epoch(0)
    ds = chain(RandomResizedCrop(12), epoch=epoch)
    expected = [frozen(images) for images, _ in ds]
    running = iter(ds)
    head = [frozen(next(running)[0])]
    epoch.go_to(1)
    assert head + [frozen(images) for images, _ in running] == expected


def test_without_a_transform_whole_images_come_as_a_list(chain, uint8_lmdb):
    reader = RecordReader(Store(uint8_lmdb / "train.lmdb"))
    images = [image for batch, _ in chain(None) for image in batch]
    for number, image in enumerate(images):
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
        assert (image == reader.pixels(number)[0].transpose(2, 0, 1)).all()


def test_a_callable_gets_pixels_of_its_own_in_a_worker_thread(chain):
    def transform(pixels):
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert pixels.flags.c_contiguous and pixels.flags.writeable
        assert threading.current_thread().name.startswith("dataflows")
        pixels[:] = 7
        return pixels

    for images, _ in chain(transform):
        assert all((image == 7).all() for image in images)
    assert not any((image == 7).all() for images, _ in chain(None) for image in images)  # the file is as it was


@pytest.mark.parametrize("num_threads", [0, 2])
def test_what_a_callable_raises_comes_at_its_place_with_file_and_key(chain, uint8_lmdb, num_threads):
    calls = iter(range(100))

    def transform(pixels):
        if next(calls) == 9:
            raise LookupError("no such thing")
        return pixels

    batches = iter(chain(transform, batch_size=1, num_threads=num_threads and 1))
    labels = [next(batches)[1] for _ in range(9)]
    assert len(labels) == 9
    with pytest.raises(LookupError, match="no such thing") as caught:
        next(batches)
    if hasattr(caught.value, "add_note"):  # Python 3.11 and later
        [note] = caught.value.__notes__
        assert str(uint8_lmdb / "train.lmdb") in note and "key 00000009" in note
    assert not threads()


def alive(ds):
    gc.collect()
    return sum(type(thing).__name__ == "_Owner" and thing.memory.shape == ds._batches.shape
               for thing in gc.get_objects())


def test_memory_is_used_again_when_nothing_is_held(chain):
    ds = chain(RandomResizedCrop(31), batch_size=1, num_threads=0, prefetch=1)
    for _ in range(3):
        assert len({images.__array_interface__["data"][0] for images, _ in ds}) <= 2
    assert alive(ds) == 0


def test_no_more_batches_are_in_memory_than_prefetch_allows(chain):
    ds = chain(RandomResizedCrop(30), batch_size=4, num_threads=2, prefetch=2)
    for _ in ds:
        assert alive(ds) <= 1 + 2


@pytest.mark.parametrize("hold", [lambda images: images, lambda images: images[0], lambda images: images[1:, 0, ::2],
                                  lambda images: images.reshape(-1)[5:9], lambda images: images.transpose(0, 2, 3, 1),
                                  memoryview], ids=["whole", "one", "slice", "flat", "transposed", "memoryview"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_held_is_never_overwritten(chain, hold, channels_last):
    epoch = Epoch(0)
    ds = chain(RandomResizedCrop(21), epoch=epoch, channels_last=channels_last)
    held = [(view, np.array(view)) for view in (hold(images) for images, _ in ds)]
    for number in (1, 2, 3):
        epoch.go_to(number)
        for _ in ds:
            pass
    assert all((np.asarray(view) == copy).all() for view, copy in held)


def test_a_failed_iteration_gives_its_memory_back(chain):
    ds = chain(RandomResizedCrop(22), num_threads=2)
    for _ in range(3):
        batches = iter(ds)
        next(batches)
        del batches
    assert alive(ds) == 0


# --- planar


PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
PLANES = PIXELS.transpose(2, 0, 1)


@pytest.mark.parametrize("image, expected", [
    (PIXELS, PLANES), (PIXELS[:, ::-1], PLANES[:, :, ::-1]), (PIXELS[::-1], PLANES[:, ::-1]),
    (PIXELS[:, :, ::-1], PLANES[::-1]), (PIXELS / 255, PLANES / 255), (Image.fromarray(PIXELS), PLANES),
    (Image.fromarray(PIXELS[:, :, 0]), PIXELS[:, :, 0]), (PLANES, PLANES), (PIXELS[:, :, 0], PIXELS[:, :, 0])],
    ids=["array", "mirrored", "upside down", "BGR", "floats", "PIL", "gray PIL", "planes", "gray"])
def test_images_become_planes(image, expected):
    found = planar(image)
    assert found.dtype == expected.dtype and (found == expected).all()


@pytest.mark.parametrize("thing", [3, "text", None, {"a": 1}])
def test_other_things_stay_as_they_are(thing):
    assert planar(thing) is thing
