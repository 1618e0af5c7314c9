"""Crops with callables after them, what is done for batches, and which records these were: loaders and datasets."""
import logging
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.pipeline import Pipeline, pipeline_of
from dataflows.images.tail import Tail
from dataflows.load.to_torch import ToTorch
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

CROP = RandomResizedCrop(20)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(params=[LMDBLoader, LMDBIterLoader], ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture(params=["jpeg", "uint8", "tiled"])
def path(request):
    return request.getfixturevalue(f"{request.param}_lmdb") / "train.lmdb"


def invert(image):
    assert image.dtype == torch.uint8 and image.shape == (3, 20, 20)
    return 255 - image


def invert_pil(image):
    assert isinstance(image, Image.Image) and image.mode == "RGB" and image.size == (20, 20)
    return Image.fromarray(255 - np.asarray(image))


def invert_array(image):
    assert isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == (20, 20, 3)
    return 255 - image


def all_of(loader):
    images, labels = zip(*((images, labels) for images, labels, *_ in loader))
    return torch.cat(images), torch.cat(labels)


# --- a list, led by a crop


@pytest.mark.parametrize("worker_type, num_workers", [("thread", 0), ("thread", 2), ("process", 2)])
@pytest.mark.parametrize("image_type, step", [(None, invert), ("tensor", invert), ("pil", invert_pil),
                                              ("numpy", invert_array)])
def test_a_list_fuses_its_crop(cls, path, worker_type, num_workers, image_type, step):
    plain, labels = all_of(cls(path, 5, transform=CROP, seed=3))
    loader = cls(path, 5, transform=[CROP, step], image_type=image_type, seed=3, num_workers=num_workers,
                 worker_type=worker_type)
    images, other_labels = all_of(loader)
    assert images.dtype == torch.uint8 and torch.equal(images, 255 - plain) and torch.equal(labels, other_labels)


def test_a_list_of_a_crop_alone_is_that_crop(cls, path):
    expected, _ = all_of(cls(path, 5, transform=CROP))
    assert torch.equal(all_of(cls(path, 5, transform=[CROP]))[0], expected)


def test_a_sequential_of_modules_is_taken_apart(path):
    steps = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    transform = pipeline_of([CROP, steps])
    assert transform.crop is CROP and len(transform.steps) == 2


def test_steps_are_called_in_their_order(path):
    def first(image):
        return image, "first"

    def second(pair):
        return torch.full((3, 20, 20), 7 if pair[1] == "first" else 0)

    images, _ = all_of(LMDBLoader(path, 5, transform=[CROP, first, second]))
    assert images.dtype == torch.int64 and images.unique().tolist() == [7]


@pytest.mark.parametrize("num_workers", [0, 3])
def test_results_of_several_shapes_are_a_list(path, num_workers):
    def ragged(image):
        return image[:, :10 + int(image[0, 0, 0]) % 3]

    loader = LMDBLoader(path, 23, transform=[CROP, ragged], num_workers=num_workers)
    plain = LMDBLoader(path, 23, transform=CROP)
    for _ in range(3):
        [(images, _)], [(crops, _)] = list(loader), list(plain)
        assert isinstance(images, list) and len({image.shape for image in images}) > 1
        assert all(torch.equal(image, ragged(crop)) for image, crop in zip(images, crops))


def test_results_become_one_array_again_when_they_are_alike(path):
    shapes = iter([5] * 8 + [6] * 15 + [7] * 1000)  # the first batches differ within

    def grow(image):
        return image[:, :next(shapes)]

    loader = LMDBLoader(path, 23, transform=[CROP, grow], num_workers=0)
    kinds = [images for _ in range(3) for images, _ in loader]
    assert [type(images) for images in kinds] == [list, torch.Tensor, torch.Tensor]
    assert kinds[2].shape == (23, 3, 7, 20)


def test_a_batch_of_results_is_the_callers_own(path):
    loader = LMDBLoader(path, 4, shuffle=False, transform=[CenterCrop(20, 24), lambda image: image.float()])
    expected = torch.cat([images for images, _ in loader])
    kept = [images for images, _ in loader]
    for images, _ in loader:
        images.zero_()
    assert torch.equal(torch.cat(kept), expected) and expected.dtype == torch.float32


@pytest.mark.parametrize("result", [np.ones((3, 4, 4), np.float64), torch.ones(3, 4, 4, dtype=torch.bfloat16),
                                    torch.ones(2, dtype=torch.bool), np.ones((4, 4, 3), np.float32)])
@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_results_keep_their_dtype(path, result, worker_type):
    images, _ = next(iter(LMDBLoader(path, 4, transform=[CROP, lambda image: result], worker_type=worker_type)))
    expected = torch.as_tensor(result)
    if tuple(expected.shape) == (4, 4, 3):
        expected = expected.permute(2, 0, 1)
    assert images.dtype == expected.dtype and images.shape == (4, *expected.shape) and bool((images == 1).all())


def test_what_a_step_raises_names_the_record(path):
    def fail(image):
        raise KeyError("mine")

    loader = LMDBLoader(path, 4, transform=[CROP, fail], num_workers=2)
    with pytest.raises(KeyError, match="mine") as caught:
        list(loader)
    assert not hasattr(caught.value, "add_note") or "raised by the transform of" in str(caught.value.__notes__)


@pytest.mark.parametrize("wrong, message", [
    ([CROP, 3], r"transform number 2 must be RandomResizedCrop, .* not 3"),
    ([invert, CROP], r"fused into decoding, so it must be the first of the transforms, not number 2"),
    ([RandomResizedCrop], "must be an instance"), ([CROP, [CROP]], "must be the first of the transforms")])
@pytest.mark.parametrize("kind", [LMDBLoader, LMDBDataset])
def test_wrong_lists_are_refused(path, kind, wrong, message):
    options = {"batch_size": 4} if kind is LMDBLoader else {}
    with pytest.raises(TypeError, match=message):
        kind(path, transform=wrong, **options)


# --- how it is shown


def test_what_is_fused_is_shown_and_logged(path, caplog):
    with caplog.at_level(logging.INFO, "dataflows"):
        loader = LMDBLoader(path, 4, transform=[CROP, invert])
    assert isinstance(loader.transform, Pipeline)
    text = str(loader.transform)
    assert "while decoding" in text and "RandomResizedCrop(size=(20, 20))" in text
    assert "per image, on uint8 tensors (3, H, W)" in text and "invert" in text and "per batch" not in text
    [line] = [record.getMessage() for record in caplog.records]
    assert "while decoding: RandomResizedCrop" in line and "\n" not in line
    loader.transform = loader.transform
    assert torch.equal(next(iter(loader))[0], next(iter(LMDBLoader(path, 4, transform=[CROP, invert])))[0])


@pytest.mark.parametrize("transform", [CROP, CenterCrop(20, 24), invert, None])
def test_a_single_transform_is_shown_as_it_is(path, transform):
    assert LMDBLoader(path, 4, transform=transform).transform is transform
    assert LMDBDataset(path, transform=transform).transform is transform


# --- draws


def draw(image):
    return torch.tensor([random.random(), np.random.random(), torch.rand(()).item()], dtype=torch.float64)


def test_draws_are_the_same_in_the_caller_and_in_any_number_of_processes(path):
    def epochs(**options):
        loader = LMDBLoader(path, 4, transform=[CROP, draw], seed=5, **options)
        return torch.stack([all_of(loader)[0] for _ in range(2)])

    expected = epochs(num_workers=0)
    assert torch.equal(epochs(num_workers=1, worker_type="process"), expected)
    assert torch.equal(epochs(num_workers=3, worker_type="process"), expected)
    assert expected.unique().numel() == expected.numel()


def test_draws_in_the_caller_leave_the_programs_generators_alone(path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw(None)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    list(LMDBLoader(path, 4, transform=[CROP, draw], num_workers=0))
    assert torch.equal(draw(None), expected)


# --- the tail, done for a batch


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("tail", [Tail(True, True), Tail(True, True, (MEAN, STD))])
def test_a_tail_scales_and_normalizes(tail, channels_last):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 7), np.uint8)
    if channels_last:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    floats, _ = ToTorch(channels_last=channels_last).with_tail(tail)(0, 0, images, np.zeros(5, np.int64))
    expected = torch.from_numpy(images).float() / 255
    if tail.normalize:
        expected = (expected - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert floats.dtype == torch.float32 and torch.allclose(floats, expected, atol=1e-5)
    if channels_last:
        assert floats.is_contiguous(memory_format=torch.channels_last)


def test_memory_of_floats_is_used_again_only_when_nobody_has_it():
    to_torch = ToTorch(normalize=(MEAN, STD))
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 6, 7), np.uint8)
    kept = [to_torch(0, 0, batch, np.zeros(2, np.int64))[0] for batch in images]
    again = [to_torch(0, 0, batch, np.zeros(2, np.int64))[0].clone() for batch in images]
    assert all(torch.equal(a, b) for a, b in zip(kept, again))
    assert len({batch.data_ptr() for batch in kept}) == 20


def test_erasing_draws_by_position_and_leaves_the_generators_alone():
    def erase(image):
        return torch.full_like(image, torch.rand(()).item())

    to_torch = ToTorch().with_tail(Tail(True, True, None, erase))
    images, labels = np.zeros((6, 3, 4, 4), np.uint8), np.zeros(6, np.int64)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    whole, _ = to_torch(7, 2, images, labels, np.arange(6), np.arange(6))
    assert torch.equal(torch.rand(1), expected)
    parts = [to_torch(7, 2, images[i:i + 2], labels[i:i + 2], np.arange(2), np.arange(i, i + 2))[0] for i in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), whole) and whole.unique().numel() == 6
    assert not torch.equal(to_torch(7, 3, images, labels, np.arange(6), np.arange(6))[0], whole)


def test_normalize_twice_is_refused():
    with pytest.raises(ValueError, match="normalize in one place only"):
        ToTorch(normalize=(MEAN, STD)).with_tail(Tail(True, True, (MEAN, STD)))
    with pytest.raises(ValueError, match="gives fractions"):
        ToTorch(dtype=torch.int32).with_tail(Tail(True, True))


# --- batch_transform, target_transform, return_index


def mix(images, labels):
    weight = torch.rand(())
    return images.float() * weight, torch.stack([labels.float(), weight.expand(len(labels))], 1)


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_a_batch_transform_gets_the_batch_and_draws_by_position(cls, path, worker_type):
    plain = list(cls(path, 6, transform=CROP, seed=2))
    loader = cls(path, 6, transform=CROP, seed=2, batch_transform=mix, worker_type=worker_type, num_workers=2)
    for (images, labels), (mixed, targets) in zip(plain, loader, strict=True):
        weight = targets[0, 1]
        assert torch.equal(mixed, images.float() * weight) and torch.equal(targets[:, 0], labels.float())
    again = cls(path, 6, transform=CROP, seed=2, batch_transform=mix)
    it = iter(again)
    first, second = next(it), next(it)
    state = again.state_dict()
    it.close()
    resumed = cls(path, 6, transform=CROP, seed=2, batch_transform=mix)
    resumed.load_state_dict(state)
    rest = [first, second, *resumed]
    for (images, targets), (expected, expected_targets) in zip(
            rest, cls(path, 6, transform=CROP, seed=2, batch_transform=mix), strict=True):
        assert torch.equal(images, expected) and torch.equal(targets, expected_targets)


@pytest.mark.parametrize("result", [None, torch.zeros(3), (1, 2, 3)])
def test_a_batch_transform_must_return_both(path, result):
    with pytest.raises(TypeError, match=r"batch_transform must return \(images, labels\)"):
        list(LMDBLoader(path, 4, transform=CROP, batch_transform=lambda images, labels: result))


@pytest.mark.parametrize("option", ["batch_transform", "target_transform"])
def test_what_cannot_be_called_is_refused(path, option):
    with pytest.raises(TypeError, match=f"{option} must be a callable"):
        LMDBLoader(path, 4, transform=CROP, **{option: 3})


def one_hot(label):
    assert type(label) is int
    return torch.nn.functional.one_hot(torch.tensor(label), 10)


@pytest.mark.parametrize("worker_type", ["thread", "process"])
@pytest.mark.parametrize("transform, dtype", [(lambda label: label + 100, torch.int64),
                                              (lambda label: label / 2, torch.float64), (one_hot, torch.int64)])
def test_target_transforms_are_collated(cls, path, worker_type, transform, dtype):
    _, labels = all_of(cls(path, 5, transform=CROP))
    _, targets = all_of(cls(path, 5, transform=CROP, target_transform=transform, worker_type=worker_type))
    expected = torch.stack([torch.as_tensor(transform(label)) for label in labels.tolist()])
    assert targets.dtype == dtype and torch.equal(targets, expected.to(dtype))


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_record_numbers_on_request(cls, path, worker_type):
    loader = cls(path, 5, transform=CROP, return_index=True, worker_type=worker_type, num_workers=2)
    dataset = LMDBDataset(path, return_index=True)
    seen = []
    for images, labels, numbers in loader:
        assert numbers.dtype == torch.int64 and numbers.shape == labels.shape == images.shape[:1]
        assert [dataset[number][1:] for number in numbers.tolist()] == list(zip(labels.tolist(), numbers.tolist()))
        names = loader.source_names(numbers)
        assert names == dataset.source_names(numbers) and all(name.endswith(".JPEG") for name in names)
        assert [dataset.classes[label] for label in labels] == [name.split("/")[0] for name in names]
        seen += numbers.tolist()
    assert sorted(seen) == list(range(23))


# --- datasets


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataset_decodes_a_batch_at_once(path, num_workers):
    dataset = LMDBDataset(path, transform=[CenterCrop(20, 24), invert])
    single = torch.stack([dataset[number][0] for number in range(23)])
    images, labels = zip(*DataLoader(dataset, 5, num_workers=num_workers))
    assert torch.equal(torch.cat(images), single)
    assert torch.cat(labels).tolist() == dataset.targets
    assert torch.equal(torch.cat(images), torch.cat([images for images, _ in LMDBLoader(
        path, 5, shuffle=False, transform=[CenterCrop(20, 24), invert])]))


def test_a_batch_draws_what_single_samples_draw(path):
    dataset = LMDBDataset(path, transform=CROP)
    torch.manual_seed(0)
    single = [dataset[number][0] for number in range(6)]
    torch.manual_seed(0)
    batch = dataset.__getitems__([*range(6)])
    assert all(torch.equal(image, other) for (image, _), other in zip(batch, single, strict=True))


class _Ends:
    """A transform that draws from an iterator, which has an end."""

    def __init__(self):
        self.numbers = iter(range(12))

    def __call__(self, image):
        next(self.numbers)
        return image


@pytest.mark.parametrize("make", [
    lambda path: LMDBLoader(path, 5, transform=[CROP, _Ends()], num_workers=0),
    lambda path: LMDBLoader(path, 5, transform=[CROP, _Ends()], num_workers=2),
    lambda path: LMDBLoader(path, 5, transform=CROP, target_transform=_Ends(), num_workers=0),
    lambda path: DataLoader(LMDBDataset(path, [CROP, _Ends()]), 5),
    lambda path: DataLoader(LMDBDataset(path, CROP, _Ends()), 5),
    lambda path: LMDBIterDataset(path, transform=[CROP, _Ends()]),
    lambda path: LMDBIterDataset(path, transform=_Ends()),
], ids=["caller", "threads", "target", "DataLoader", "its target", "iterable", "iterable, whole"])
def test_a_callable_that_stops_ends_no_epoch_silently(path, make):
    with pytest.raises(RuntimeError, match="transform raised StopIteration for .*train.lmdb.*give next a default"):
        list(make(path))


def test_what_a_callable_of_a_dataset_raises_names_the_record(path):
    def fail(_):
        raise KeyError("mine")

    for options in ({"transform": [CROP, fail]}, {"target_transform": fail}):
        with pytest.raises(KeyError, match="mine") as raised:
            LMDBDataset(path, **options)[3]
        if hasattr(raised.value, "__notes__"):
            assert "train.lmdb" in raised.value.__notes__[0]


@pytest.mark.parametrize("result", [None, object()])
def test_targets_that_no_batch_is_made_of_are_named(path, result):
    with pytest.raises(TypeError, match="what target_transform gives cannot become one batch.*It must give numbers"):
        list(LMDBLoader(path, 5, transform=CROP, target_transform=lambda label: result))


def test_numbers_of_a_batch_are_checked(path):
    dataset = LMDBDataset(path, transform=CROP)
    assert dataset.__getitems__([-1])[0][1] == dataset[22][1]
    with pytest.raises(IndexError, match="has 23 records; there is no number 23"):
        dataset.__getitems__([0, 23])


def test_an_iterable_dataset_raises_at_the_place_of_its_sample(path):
    def fail(image):
        seen.append(image)
        if image[0, 0, 0] == bad[0, 0, 0] and torch.equal(image, bad):
            raise KeyError("mine")
        return image

    seen = []
    crop = CenterCrop(20, 24)
    bad = LMDBDataset(path, transform=crop)[7][0]
    samples = iter(LMDBIterDataset(path, order="sequential", transform=[crop, fail]))
    assert len([next(samples) for _ in range(7)]) == 7
    with pytest.raises(KeyError, match="mine"):
        next(samples)
    assert samples.state_dict()["samples"] == 8
    assert len(list(samples)) == 15


# --- what a DataLoader has


def test_a_loader_has_what_frameworks_look_for(cls, path):
    loader = cls(path, 5, transform=[CROP, invert], seed=4, drop_last=True, num_workers=2)
    assert (loader.batch_size, loader.drop_last, loader.num_workers, loader.pin_memory) == (5, True, 2, False)
    assert len(loader.dataset) == 23 and loader.classes == LMDBDataset(path).classes
    assert len(loader.batch_sampler) == len(loader) == 4 and len(loader.sampler) == 20
    loader.sampler.set_epoch(3)
    numbers = [*loader.batch_sampler]
    assert [number for batch in numbers for number in batch] == [*loader.sampler]
    own = cls(path, 5, transform=[CROP, invert], seed=4, drop_last=True, return_index=True)
    own.set_epoch(3)
    assert [batch.tolist() for _, _, batch in own] == numbers


@pytest.mark.parametrize("options", [{}, {"normalize": (MEAN, STD)}, {"dtype": torch.float16}])
def test_torchs_loader_makes_the_same_batches_of_its_parts(path, options):
    loader = LMDBLoader(path, 5, transform=CenterCrop(20, 24), **options)
    other = DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, collate_fn=loader.collate_fn)
    for (images, labels), (expected, expected_labels) in zip(other, loader, strict=True):
        assert images.dtype == expected.dtype and torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_loaders_with_recipes_pickle(path):
    loader = LMDBLoader(path, 5, transform=[CROP, invert], normalize=(MEAN, STD), return_index=True)
    list(loader)
    copy = pickle.loads(pickle.dumps(loader))
    loader.set_epoch(1), copy.set_epoch(1)
    assert all(torch.equal(a, b) for ours, others in zip(loader, copy, strict=True) for a, b in zip(ours, others))
