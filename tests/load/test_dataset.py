"""LMDBDataset and LMDBIterDataset under torch's own DataLoader: samplers, workers, start methods, image types."""
import copy
import errno
import logging
import os
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tensorpack.dataflow import DataFromList
from torch.utils.data import DataLoader, RandomSampler, Subset, SubsetRandomSampler, WeightedRandomSampler

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.dump.write import Packed, PackedLMDBSerializer
from dataflows.load.decode.reader import RecordReader
from dataflows.storage import record
from dataflows.storage.store import Store
from helpers.limits import limited_memory
from helpers.paths import ROOT
from uint_lmdb_iterloader import LMDBIterDataset
from uint_lmdb_loader import LMDBDataset, LMDBLoader

TIMEOUT_SECONDS = 60
CLASSES = ["n01440764", "n01443537", "n01484850"]


@pytest.fixture(params=[LMDBDataset, LMDBIterDataset], ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def path(jpeg_lmdb):
    return jpeg_lmdb / "train.lmdb"


@pytest.fixture
def without_index(jpeg_lmdb, tmp_path):
    (tmp_path / "train.lmdb").write_bytes((jpeg_lmdb / "train.lmdb").read_bytes())
    return tmp_path / "train.lmdb"


def records(path):
    reader = RecordReader(Store(path))
    return [reader.pixels(number) for number in range(len(reader.store))]


def samples(batches):
    """(label, pixels) of each sample of batches of lists."""
    return [(label, image.numpy().tobytes()) for batch in batches for image, label in batch]


def as_list(batch):
    return batch


def loader(dataset, **options):
    timeout = TIMEOUT_SECONDS if options.get("num_workers") else 0
    return DataLoader(dataset, collate_fn=as_list, timeout=timeout, **options)


@pytest.fixture(scope="module")
def expected(jpeg_lmdb):
    return [(label, pixels.transpose(2, 0, 1).tobytes()) for pixels, label in records(jpeg_lmdb / "train.lmdb")]


# --- one sample


def test_a_sample_is_a_uint8_tensor_and_an_int(path):
    dataset = LMDBDataset(path)
    for number, (pixels, label) in enumerate(records(path)):
        image, target = dataset[number]
        assert type(target) is int and target == label
        assert image.dtype == torch.uint8 and image.shape == (3, *pixels.shape[:2]) and image.is_contiguous()
        assert np.array_equal(image.numpy(), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
def test_image_types_hold_the_same_pixels(cls, image_format, request):
    path = request.getfixturevalue(f"{image_format}_lmdb") / "val.lmdb"
    pixels, _ = records(path)[0]
    array, _ = next(iter(cls(path, image_type="numpy")))
    assert array.dtype == np.uint8 and array.flags.c_contiguous and array.flags.writeable
    assert np.array_equal(array, pixels)
    image, _ = next(iter(cls(path, image_type="pil")))
    assert isinstance(image, Image.Image) and image.mode == "RGB" and np.array_equal(np.asarray(image), pixels)


def test_an_image_is_the_callers_own(cls, uint8_lmdb):
    dataset = cls(uint8_lmdb / "val.lmdb")
    image, _ = next(iter(dataset))
    before = image.clone()
    image.zero_()
    assert torch.equal(next(iter(dataset))[0], before)


@pytest.mark.parametrize("image_type, kind", [("tensor", torch.Tensor), ("numpy", np.ndarray), ("pil", Image.Image)])
def test_transforms_get_the_image_and_the_target(cls, path, image_type, kind):
    def transform(image):
        assert isinstance(image, kind)
        return "image"

    dataset = cls(path, image_type=image_type, transform=transform, target_transform=lambda target: target + 100)
    assert next(iter(dataset)) == ("image", 100 + records(path)[0][1])


@pytest.mark.parametrize("transform", [RandomResizedCrop((20, 24)), CenterCrop((20, 24), 32)])
def test_fused_transforms_give_images_of_their_size(cls, path, transform):
    image, _ = next(iter(cls(path, transform=transform)))
    assert image.dtype == torch.uint8 and image.shape == (3, 20, 24) and image.is_contiguous()
    image, _ = next(iter(cls(path, transform=transform, image_type="numpy")))
    assert image.dtype == np.uint8 and image.shape == (20, 24, 3) and image.flags.c_contiguous
    image, _ = next(iter(cls(path, transform=transform, image_type="pil")))
    assert image.size == (24, 20)


def test_a_fused_center_crop_equals_the_loaders(path):
    dataset = LMDBDataset(path, transform=CenterCrop(20, 32))
    images = torch.cat([images for images, _ in LMDBLoader(path, 5, shuffle=False, transform=CenterCrop(20, 32))])
    assert torch.equal(torch.stack([dataset[number][0] for number in range(23)]), images)


def test_fused_random_crops_draw_from_torchs_generator(path):
    dataset = LMDBDataset(path, transform=RandomResizedCrop(20))
    torch.manual_seed(0)
    first = [dataset[0][0] for _ in range(5)]
    assert len({image.numpy().tobytes() for image in first}) == 5
    torch.manual_seed(0)
    assert all(torch.equal(dataset[0][0], image) for image in first)


def test_negative_numbers_count_from_the_end(path):
    dataset = LMDBDataset(path)
    assert torch.equal(dataset[-1][0], dataset[22][0]) and torch.equal(dataset[-23][0], dataset[0][0])


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_numbers_may_be_numpys_or_torchs(path, kind):
    dataset = LMDBDataset(path)
    assert torch.equal(dataset[kind(5)][0], dataset[5][0])


@pytest.mark.parametrize("number", [23, -24, 10**12])
def test_a_number_out_of_range_is_an_index_error(path, number):
    with pytest.raises(IndexError, match=f"{path} has 23 records; there is no number {number}"):
        LMDBDataset(path)[number]


@pytest.mark.parametrize("number", [1.5, "1", None, slice(2)])
def test_what_is_no_number_is_refused(path, number):
    with pytest.raises(TypeError):
        LMDBDataset(path)[number]


def test_a_dataset_can_be_iterated(path, expected):
    assert samples([LMDBDataset(path)]) == samples([LMDBIterDataset(path)]) == expected
    assert len(LMDBDataset(path)) == len(LMDBIterDataset(path)) == 23


@pytest.mark.parametrize("image_type", ["Tensor", "ndarray", 3])
def test_an_unknown_image_type_is_refused(cls, path, image_type):
    with pytest.raises(ValueError, match=r"image_type must be 'tensor', 'numpy' or 'pil', not "):
        cls(path, image_type=image_type)


def test_a_missing_file_is_refused(cls, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no LMDB file {tmp_path / 'none.lmdb'}"):
        cls(tmp_path / "none.lmdb")


class Gray(RandomResizedCrop):
    def __call__(self, image):
        return "gray"


def test_a_class_derived_from_a_crop_does_what_it_defines(cls, path):
    assert next(iter(cls(path, transform=Gray(16))))[0] == "gray"


def test_a_transform_and_an_image_type_may_be_set(cls, path):
    dataset = cls(path)
    dataset.transform, dataset.image_type = RandomResizedCrop(16), "numpy"
    assert next(iter(dataset))[0].shape == (16, 16, 3)
    with pytest.raises(TypeError, match=r"transform must be an instance, such as RandomResizedCrop\(...\), not the"):
        dataset.transform = RandomResizedCrop
    with pytest.raises(ValueError, match="image_type must be 'tensor'"):
        dataset.image_type = "jpeg"
    assert next(iter(dataset))[0].shape == (16, 16, 3)


@pytest.mark.parametrize("transform", ["RandomResizedCrop", 224, RandomResizedCrop, CenterCrop])
def test_a_wrong_transform_is_refused(cls, path, transform):
    with pytest.raises(TypeError, match="transform must be "):
        cls(path, transform=transform)


@pytest.mark.parametrize("name, near", [("tranform", "transform"), ("image_typ", "image_type")])
def test_a_misspelt_option_is_told_the_nearest(cls, path, name, near):
    with pytest.raises(TypeError, match=f"{cls.__name__} got an unexpected option '{name}'; did you mean {near}\\?"):
        cls(path, **{name: 1})


def test_a_misspelt_option_of_the_order_is_told_the_nearest(path):
    with pytest.raises(TypeError, match="LMDBIterDataset got .* 'shufle_buffer'; did you mean shuffle_buffer\\?"):
        LMDBIterDataset(path, shufle_buffer=3)


@pytest.mark.parametrize("what", ["meta", torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("transform", [None, CenterCrop(20, 32), RandomResizedCrop(20)], ids=str)
def test_defaults_of_torch_change_nothing(cls, path, transform, what):
    torch.manual_seed(0)
    expected = samples([cls(path, transform=transform)])
    torch.manual_seed(0)
    try:
        (torch.set_default_dtype if isinstance(what, torch.dtype) else torch.set_default_device)(what)
        found = list(cls(path, transform=transform))
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert {image.device.type for image, _ in found} == {"cpu"} and samples([found]) == expected


# --- ImageFolder's attributes


@pytest.mark.parametrize("name", ["classes", "class_names", "class_to_idx", "targets"])
def test_what_the_file_says_cannot_be_set(cls, path, name):
    dataset = cls(path)
    for _ in range(2):
        with pytest.raises(AttributeError, match=f"{name}.* of '?{cls.__name__}"):
            setattr(dataset, name, [])
        assert len(getattr(dataset, name)) in (3, 23)


def test_classes_and_targets_come_from_the_index(cls, path, caplog):
    dataset = cls(path)
    assert dataset.classes == dataset.class_names == CLASSES
    assert dataset.class_to_idx == {name: number for number, name in enumerate(CLASSES)}
    assert dataset.targets == [label for _, label in records(path)]
    assert {type(target) for target in dataset.targets} == {int}
    assert caplog.records == []


def test_without_an_index_targets_are_read_once_with_a_warning(cls, without_index, caplog):
    dataset = cls(without_index)
    assert caplog.records == []
    for _ in range(2):
        assert dataset.targets == [label for _, label in records(without_index)]
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING and str(without_index) in warning.getMessage()
    assert dataset.classes == dataset.class_names == ["0", "1", "2"]
    assert dataset.class_to_idx == {"0": 0, "1": 1, "2": 2}


def labelled(path, labels):
    """An LMDB without an index that has these labels."""
    image = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    PackedLMDBSerializer.save(DataFromList([Packed(record.pack([image, label]), None) for label in labels],
                                           shuffle=False), str(path))
    return path


@pytest.mark.parametrize("labels", [[3, 300_000_000, 0], [0, 2**62], [0, 2**63 - 1], [1, -1, 0], [-7]])
def test_labels_that_are_no_class_numbers_have_no_classes(cls, tmp_path, labels):
    """A name for each number up to the greatest would take all memory; a negative one would get the name of another."""
    path = labelled(tmp_path / "odd.lmdb", labels)
    dataset = cls(path)
    with limited_memory():
        for attribute in ("classes", "class_names", "class_to_idx"):
            with pytest.raises(ValueError) as info:
                getattr(dataset, attribute)
            for word in (str(path), f"from {min(labels):,} to {max(labels):,}", "`targets`", "target_transform"):
                assert word in str(info.value)
    assert dataset.targets == labels and next(iter(dataset))[1] == labels[0]


def test_a_few_records_of_many_classes(cls, tmp_path):
    dataset = cls(labelled(tmp_path / "few.lmdb", [20_000, 999]))
    assert len(dataset.classes) == 20_001 and [dataset.classes[label] for label in dataset.targets] == ["20000", "999"]
    assert [dataset.class_to_idx[name] for name in ("0", "999", "20000")] == [0, 999, 20_000]


def test_targets_do_not_know_of_target_transform(path):
    assert LMDBDataset(path, target_transform=str).targets == [label for _, label in records(path)]


# --- pickling and closing


def test_a_dataset_pickles_before_and_after_use(cls, path, expected):
    dataset = cls(path)
    for _ in range(2):
        for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
            assert samples([other]) == expected
        assert samples([dataset]) == expected
    assert len(pickle.dumps(dataset)) < 20_000


def test_a_pickle_brings_options_along(path):
    dataset = LMDBIterDataset(path, order="block", shuffle_buffer=5, block_size=3, seed=3, rank=1, world_size=2,
                              uneven="drop", indices=range(1, 20), repeats=2, transform=CenterCrop(20, 32))
    dataset.set_epoch(4)
    copied = pickle.loads(pickle.dumps(dataset))
    assert samples([copied]) == samples([dataset]) and len(copied) == len(dataset) == 19
    assert next(iter(copied))[0].shape == (3, 20, 20)


def test_a_copy_has_an_epoch_of_its_own(path):
    dataset = LMDBIterDataset(path, shuffle_buffer=10)
    expected = samples([dataset])
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        other.set_epoch(1)
        assert samples([dataset]) == expected != samples([other])


def test_later_changes_of_an_array_of_indices_are_not_seen(path):
    indices = np.array([3, 5])
    dataset = LMDBIterDataset(path, indices=indices)
    expected = samples([dataset])
    indices[:] = 0
    assert samples([dataset]) == expected


def test_a_closed_dataset_opens_again(cls, path, expected):
    dataset = cls(path)
    dataset.close()
    assert samples([dataset]) == expected
    dataset.close()
    dataset.close()


# --- DataLoader


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("image_format", ["jpeg", "uint8"])
def test_sequential_and_random_samplers_give_each_sample_once(num_workers, image_format, request):
    path = request.getfixturevalue(f"{image_format}_lmdb") / "train.lmdb"
    expected = [(label, pixels.transpose(2, 0, 1).tobytes()) for pixels, label in records(path)]
    dataset = LMDBDataset(path)
    dataset[0]  # workers inherit a file that is open
    assert samples(loader(dataset, batch_size=4, num_workers=num_workers)) == expected
    shuffled = samples(loader(dataset, batch_size=4, num_workers=num_workers, shuffle=True))
    assert shuffled != expected and sorted(shuffled) == sorted(expected)


def test_other_samplers(path, expected):
    dataset = LMDBDataset(path)
    chosen = [3, 20, 7]
    assert samples(loader(Subset(dataset, chosen))) == [expected[number] for number in chosen]
    assert sorted(samples(loader(dataset, sampler=SubsetRandomSampler(chosen)))) == sorted(expected[n] for n in chosen)
    weights = [float(target == 1) for target in dataset.targets]
    weighted = samples(loader(dataset, sampler=WeightedRandomSampler(weights, 40), num_workers=2))
    assert len(weighted) == 40 and {label for label, _ in weighted} == {1}
    assert len(samples(loader(dataset, sampler=RandomSampler(dataset, replacement=True, num_samples=31)))) == 31


# Pickling is the same for both slow start methods, so each takes one kind of dataset.
@pytest.mark.parametrize("context, cls", [("fork", LMDBDataset), ("fork", LMDBIterDataset),
                                          ("forkserver", LMDBIterDataset), ("spawn", LMDBDataset)])
def test_start_methods(context, cls, path, expected):
    dataset = cls(path)
    next(iter(dataset))  # the file is open when the workers start
    batches = loader(dataset, batch_size=4, num_workers=2, multiprocessing_context=context)
    assert sorted(samples(batches)) == sorted(expected)


def test_default_collation(cls, path):
    batches = list(DataLoader(cls(path, transform=RandomResizedCrop(16)), batch_size=4))
    images, labels = batches[0]
    assert images.shape == (4, 3, 16, 16) and images.dtype == torch.uint8
    assert labels.shape == (4,) and labels.dtype == torch.int64


def test_workers_draw_different_crops_and_new_ones_each_epoch(path):
    crops = loader(Subset(LMDBDataset(path, transform=RandomResizedCrop(8)), [0] * 8), num_workers=2, batch_size=4)
    seen = [image.numpy().tobytes() for _ in range(2) for batch in crops for image, _ in batch]
    assert len(set(seen)) == len(seen) == 16


@pytest.mark.parametrize("antialias", [True, False])
def test_forked_workers_do_not_hang_after_the_parent_has_used_its_threads(path, antialias):
    cv2.resize(np.zeros((2000, 2000, 3), np.uint8), (1000, 1000))
    torch.ones(1000, 1000).mul_(2)
    dataset = LMDBDataset(path, transform=RandomResizedCrop(600, antialias=antialias))
    dataset[0]
    batches = loader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork")
    assert sum(len(batch) for batch in batches) == 23


# --- LMDBIterDataset's order


@pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes")
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("shuffle_buffer", [0, 4])
def test_workers_share_out_every_sample_once(num_workers, shuffle_buffer, path, expected):
    dataset = LMDBIterDataset(path, order="local", shuffle_buffer=shuffle_buffer)
    assert sorted(samples(loader(dataset, batch_size=3, num_workers=num_workers))) == sorted(expected)


@pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes")
def test_more_workers_than_records(jpeg_lmdb, tmp_path):
    image, _ = RecordReader(Store(jpeg_lmdb / "val.lmdb")).view(0)
    packed = [Packed(record.pack([image.tobytes(), label])) for label in (0, 1)]
    PackedLMDBSerializer.save(DataFromList(packed, shuffle=False), str(tmp_path / "two.lmdb"))
    for shuffle_buffer in (0, 4):
        dataset = LMDBIterDataset(tmp_path / "two.lmdb", order="local", shuffle_buffer=shuffle_buffer)
        assert sorted(label for label, _ in samples(loader(dataset, num_workers=3))) == [0, 1]


def test_without_a_buffer_the_order_is_that_of_the_file(path, expected):
    for _ in range(2):
        assert samples([LMDBIterDataset(path)]) == expected
    by_two = samples(loader(LMDBIterDataset(path), num_workers=2))
    assert by_two[::2][:11] == expected[:11]  # the first worker has one contiguous part


def test_a_buffer_shuffles_by_seed_and_epoch(path, expected):
    orders = []
    for seed in (0, 1):
        dataset = LMDBIterDataset(path, order="local", shuffle_buffer=10, seed=seed)
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            orders.append(samples([dataset]))
            assert samples([dataset]) == orders[-1]
            assert sorted(orders[-1]) == sorted(expected)
    assert len(set(map(tuple, orders))) == 4


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_set_epoch_reaches_workers_that_persist(path, context, refused, monkeypatch):
    """Also where a sandbox refuses memory without a name."""
    def no_memory(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    if refused:
        monkeypatch.setattr(os, "memfd_create", no_memory)
    dataset = LMDBIterDataset(path, order="local", shuffle_buffer=10)
    batches = loader(dataset, batch_size=4, num_workers=2, persistent_workers=True, multiprocessing_context=context)
    orders = []
    for epoch in (0, 1, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(samples(batches))
    del batches
    assert orders[0] == orders[3] and orders[1] == orders[2] and orders[0] != orders[1]


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", None])
def test_a_wrong_epoch_is_refused(path, epoch):
    with pytest.raises((ValueError, TypeError), match="epoch must be a non-negative integer"):
        LMDBIterDataset(path).set_epoch(epoch)


@pytest.mark.parametrize("options, message", [
    ({"shuffle_buffer": -1}, "shuffle_buffer must be"), ({"seed": -1}, "seed must be a non-negative integer"),
    ({"order": "local", "shuffle_buffer": -1}, "shuffle_buffer must be"), ({"block_size": 0}, "block_size must be"),
    ({"order": "random"}, "order must be 'local', 'block', 'shard' or 'sequential', not 'random'"),
    ({"rank": 1}, "rank=1 and world_size=None: give both"), ({"uneven": "stretch"}, "uneven must be 'pad', "),
    ({"indices": [23]}, "indices must be record numbers from 0 to 22 of .*, not 23"), ({"repeats": 0}, "repeats must")])
def test_wrong_options_are_refused_before_a_worker_starts(path, options, message):
    with pytest.raises(ValueError, match=message):
        LMDBIterDataset(path, **options)


def test_the_length_of_a_dataloader_of_whole_epochs_is_exact(path):
    batches = loader(LMDBIterDataset(path), batch_size=4)
    assert len(batches) == len(list(batches)) == 6


# --- /dev/shm


WITHOUT_SHM = """
import json, multiprocessing, sys
from dataflows import RandomResizedCrop
from torch.utils.data import DataLoader
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader


def main():
    path, seen = sys.argv[1], []
    try:
        multiprocessing.Lock()
        raise SystemExit("there is room in /dev/shm")
    except OSError:
        pass
    dataset = LMDBIterDataset(path)
    dataset.set_epoch(1)
    seen += [len(list(dataset)), len(list(DataLoader(dataset, batch_size=None)))]
    seen += [len(list(DataLoader(LMDBDataset(path), batch_size=None)))]
    for cls in (LMDBLoader, LMDBIterLoader):
        for worker_type in ("thread", "process"):
            with cls(path, 4, transform=RandomResizedCrop(224), num_workers=2, worker_type=worker_type) as loader:
                seen.append(sum(len(labels) for _, labels in loader))
    print(seen)


if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("state", ["full", "missing"])
def test_without_room_in_dev_shm_all_works_but_torchs_own_workers(path, tmp_path, state):
    (tmp_path / "script.py").write_text(WITHOUT_SHM)
    mount = {"full": "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/rest",
             "missing": "mkdir dev && touch dev/null dev/urandom && mount --bind /dev/null dev/null && "
                        "mount --bind /dev/urandom dev/urandom && mount --rbind dev /dev"}[state]
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    run = f"rm -rf dev && {mount} && exec {sys.executable} script.py {path}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", run], cwd=tmp_path, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout) == (0, f"{[23] * 7}\n"), done.stderr
