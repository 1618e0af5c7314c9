"""From batches to torch tensors: shapes, types, normalization, memory formats, and options that are refused."""
import contextlib
import copy
import inspect
import itertools
import pickle
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.plan import FLIP
from helpers.limits import limited_memory
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

CROP = RandomResizedCrop(20)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def loader(uint8_lmdb):
    """Makes a loader over val.lmdb (10 records) in the order of the file."""
    def make(transform=CROP, batch_size=4, num_workers=2, **options):
        return LMDBLoader(uint8_lmdb / "val.lmdb", batch_size, shuffle=False, transform=transform,
                          num_workers=num_workers, **options)
    return make


@pytest.fixture(autouse=True)
def _repeated_warnings():
    """torch gives some warnings once per process; here they are errors each time."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


def frozen(batches):
    """Batches as what compares by content."""
    def content(image):
        return image.dtype, image.shape, image.contiguous().view(-1).view(torch.uint8).numpy().tobytes()

    return [(labels.tolist(), content(images) if isinstance(images, torch.Tensor) else [*map(content, images)])
            for images, labels in batches]


def first_images(loader):
    images, _ = next(iter(loader))
    return images


# --- what is yielded


def test_batches_are_uint8_images_and_int64_labels(loader):
    batches = list(loader(RandomResizedCrop((20, 24))))
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 20, 24), (4, 3, 20, 24), (2, 3, 20, 24)]
    for batch in batches:
        assert isinstance(batch, tuple)
        images, labels = batch
        assert images.dtype == torch.uint8 and images.is_contiguous() and images.device.type == "cpu"
        assert labels.dtype == torch.int64 and labels.shape == (len(images),)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_batches_are_writable_and_the_callers_own(loader):
    for images, labels in loader():
        images.zero_()
        labels.zero_()
    assert sum(int(images.sum()) for images, _ in loader()) > 0


@pytest.mark.parametrize("num_workers", [0, 1, 2, 8])
def test_the_number_of_workers_changes_nothing(loader, num_workers):
    for expected, found in zip(loader(num_workers=3), loader(num_workers=num_workers), strict=True):
        assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])


@pytest.mark.parametrize("batch_size, drop_last, sizes", [(4, False, [4, 4, 2]), (4, True, [4, 4]), (5, False, [5, 5]),
                                                          (5, True, [5, 5]), (10, True, [10]), (11, False, [10]),
                                                          (1, True, [1] * 10)])
def test_len_is_the_number_of_batches(loader, batch_size, drop_last, sizes):
    ours = loader(batch_size=batch_size, drop_last=drop_last)
    assert len(ours) == len(sizes)
    assert [len(labels) for _, labels in ours] == sizes


def test_whole_images_are_a_list_of_tensors(loader):
    for images, labels in loader(None):
        assert isinstance(images, list) and len(images) == len(labels)
        assert all(i.dtype == torch.uint8 and i.ndim == 3 and i.shape[0] == 3 and i.is_contiguous() for i in images)


def flip_to_channels(pixels):
    return pixels[:8, :8].transpose(2, 0, 1)[:, :, ::-1]


CALLABLES = {
    "array (H, W, 3)": (lambda p: p[:8, :8], lambda p: p[:8, :8].transpose(2, 0, 1)),
    "mirrored array": (lambda p: p[:8, :8][:, ::-1], lambda p: p[:8, :8][:, ::-1].transpose(2, 0, 1)),
    "array (3, H, W)": (lambda p: p[:8, :9].transpose(2, 0, 1), lambda p: p[:8, :9].transpose(2, 0, 1)),
    "mirrored array (3, H, W)": (flip_to_channels, flip_to_channels),
    "gray array": (lambda p: p[:8, :8, 0], lambda p: p[:8, :8, 0]),
    "mirrored gray array": (lambda p: p[:8, :8, 0][:, ::-1], lambda p: p[:8, :8, 0][:, ::-1]),
    "read-only array": (lambda p: np.frombuffer(p[:8, :8].tobytes(), np.uint8),
                        lambda p: np.frombuffer(p[:8, :8].tobytes(), np.uint8)),
    "float array": (lambda p: p[:8, :8] / np.float32(255), lambda p: p[:8, :8].transpose(2, 0, 1) / np.float32(255)),
    "tensor": (lambda p: torch.from_numpy(p[:8, :8].copy()).permute(2, 0, 1), lambda p: p[:8, :8].transpose(2, 0, 1)),
    "float tensor": (lambda p: torch.from_numpy(p[:8, :8] / 255), lambda p: p[:8, :8] / 255),
    "PIL image": (lambda p: Image.fromarray(p[:8, :8].copy()), lambda p: p[:8, :8].transpose(2, 0, 1)),
    "gray PIL image": (lambda p: Image.fromarray(p[:8, :8, 0].copy()), lambda p: p[:8, :8, 0]),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_equal_shapes_of_a_callables_results_are_stacked(loader, kind):
    transform, expected = CALLABLES[kind]
    whole = [image.permute(1, 2, 0).numpy() for image in first_images(loader(None))]
    images = first_images(loader(transform))
    assert isinstance(images, torch.Tensor)
    assert np.array_equal(images.numpy(), np.stack([expected(pixels) for pixels in whole]))


@pytest.mark.parametrize("transform", [lambda p: p, lambda p: torch.from_numpy(p), lambda p: Image.fromarray(p),
                                       lambda p: p[:, ::-1], lambda p: p.astype(np.float32)],
                         ids=["array", "tensor", "PIL", "mirrored", "floats"])
def test_different_shapes_are_a_list_of_tensors(loader, transform):
    images = first_images(loader(transform))
    assert isinstance(images, list) and all(isinstance(image, torch.Tensor) for image in images)
    assert len({image.shape for image in images}) > 1


def test_other_results_of_a_callable_stay_as_they_are(loader):
    assert first_images(loader(lambda pixels: {"height": pixels.shape[0]}))[0].keys() == {"height"}


# --- once per batch


def test_normalization_is_that_of_torchvision(loader):
    raw = first_images(loader()).double() / 255
    expected = (raw - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    images = first_images(loader(normalize=(MEAN, STD)))
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_floating_dtype_means_zero_to_one(loader, dtype):
    images = first_images(loader(dtype=dtype))
    assert images.dtype == dtype
    assert torch.equal(images, (first_images(loader()).float() / 255).to(dtype)) or torch.allclose(
        images.double(), first_images(loader()).double() / 255, atol=torch.finfo(dtype).eps)
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_normalized_half_precision_is_rounded_once(loader, dtype):
    exact = first_images(loader(normalize=(MEAN, STD)))
    assert torch.equal(first_images(loader(normalize=(MEAN, STD), dtype=dtype)), exact.to(dtype))


def test_white_is_one_and_black_is_zero(loader):
    images = first_images(loader(lambda p: np.repeat(np.uint8([[[0], [255]]]), 3, axis=2), dtype=torch.float32))
    black, white = images[0, :, 0].T.tolist()
    assert black == [0, 0, 0] and white == pytest.approx([1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int16, torch.int64, torch.complex64, torch.float64])
def test_without_a_dtype_a_callables_results_keep_theirs(loader, dtype):
    values = torch.tensor([0, 300, -1], dtype=dtype)
    for images, _ in loader(transform=lambda pixels: values):
        assert images.dtype == dtype and (images == values).all()


def test_an_integer_dtype_keeps_zero_to_255(loader):
    images = first_images(loader(dtype=torch.int32))
    assert images.dtype == torch.int32 and torch.equal(images, first_images(loader()).int())


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float16}, {"normalize": (MEAN, STD)}, {"device": "cpu"}],
                         ids=str)
@pytest.mark.parametrize("transform", [RandomResizedCrop(20), CenterCrop(20, 32), lambda p: p[:8, :8],
                                       lambda p: torch.from_numpy(p[:8, :8].copy()).permute(2, 0, 1)],
                         ids=["random", "center", "array", "tensor"])
def test_channels_last_changes_the_memory_and_no_value(loader, transform, options):
    plain, last = (list(loader(transform, channels_last=on, **options)) for on in (False, True))
    for (expected, _), (images, _) in zip(plain, last, strict=True):
        assert expected.is_contiguous() and torch.equal(images, expected)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_is_where_tensors_go(loader, device):
    for transform in (RandomResizedCrop(20), None):
        images, labels = next(iter(loader(transform, device=device)))
        assert labels.device.type == "cpu" and all(image.device.type == "cpu" for image in images)


@pytest.mark.parametrize("options", [{"dtype": torch.float32}, {"normalize": (MEAN, STD)}], ids=["dtype", "normalize"])
def test_images_of_different_shapes_are_converted_too(loader, options):
    scale = loader(None, **options)
    for raw, image in zip(first_images(loader(None)), first_images(scale)):
        expected = raw.double() / 255
        if "normalize" in options:
            expected = (expected - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        assert image.dtype == torch.float32
        torch.testing.assert_close(image.double(), expected, atol=2e-6, rtol=1e-5)


def test_options_for_images_hold_for_floating_results_of_a_callable_too(loader):
    images = first_images(loader(lambda p: p[:8, :8] / np.float32(255), dtype=torch.float16, channels_last=True))
    assert images.dtype == torch.float16
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_gray_results_of_a_callable_are_scaled_by_a_floating_dtype(loader):
    for transform in (lambda p: p[:8, :8, 0], lambda p: p[None, :8, :8, 0]):
        raw = first_images(loader(transform))
        images = first_images(loader(transform, dtype=torch.float32))
        assert images.shape == raw.shape
        torch.testing.assert_close(images, raw.float() / 255)


def test_gray_results_of_a_callable_cannot_be_normalized_by_channel(loader):
    for transform in (lambda p: p[:3, :8, 0], lambda p: p[:8, :8, 0], lambda p: p[None, :8, :8, 0]):
        with pytest.raises(ValueError, match="normalize"):
            first_images(loader(transform, normalize=(MEAN, STD)))


def test_normalizing_twice_is_refused(loader):
    with pytest.raises(ValueError, match="normalize expects uint8 images.* and the transform gives torch.float32"):
        first_images(loader(lambda p: p[:8, :8] / np.float32(255), normalize=(MEAN, STD)))


def test_pinning_without_cuda_warns_and_does_nothing(loader):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.warns(UserWarning, match="pin_memory=True needs a CUDA device") as caught:
        ours = loader(pin_memory=True)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not first_images(ours).is_pinned()


# --- memory


HOLDS = {"images": lambda images: images, "images[0]": lambda images: images[0], "numpy": lambda images: images.numpy(),
         "slice": lambda images: images[1:3, :, 4:9, ::2], "strided": lambda images: images.as_strided((9,), (1,), 7),
         "dlpack": torch.utils.dlpack.to_dlpack, "detached": lambda images: images.detach(),
         "memoryview": lambda images: memoryview(images.numpy()), "permuted": lambda images: images.permute(0, 2, 3, 1)}


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("options", [{}, {"channels_last": True}, {"device": "cpu"}], ids=str)
def test_what_the_caller_holds_is_never_overwritten(loader, hold, options):
    ours = loader(**options)
    held = []
    for images, _ in ours:
        held.append((HOLDS[hold](images), images.clone()))
        del images
    for _ in range(3):
        for _ in ours:
            pass
    for view, before in held:
        view = torch.utils.dlpack.from_dlpack(view) if hold == "dlpack" else torch.as_tensor(np.asarray(view))
        assert torch.equal(view, torch.as_tensor(np.asarray(HOLDS[hold](before))) if hold != "dlpack" else before)


def test_a_loader_lets_go_of_its_first_batch(loader):
    batches = iter(loader(batch_size=1, num_workers=0, prefetch=1))
    images, _ = next(batches)
    first = images.data_ptr()
    del images
    assert first in {images.data_ptr() for images, _ in batches}


def test_the_dataflow_is_the_chain_itself(loader):
    ours = loader()
    for (images, labels), (tensor, numbers) in zip(ours.dataflow, loader(), strict=True):
        assert isinstance(images, np.ndarray) and np.array_equal(images, tensor.numpy())
        assert np.array_equal(labels, numbers.numpy())


@pytest.mark.parametrize("worker_type", ["thread", "process"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_is_for_the_samples_that_there_are(loader, worker_type, channels_last):
    transform = RandomResizedCrop(224)
    expected = loader(transform, batch_size=10, channels_last=channels_last)
    with limited_memory():  # 50,000 images take 7.5 GB
        few = loader(transform, batch_size=50_000, prefetch=200, worker_type=worker_type, channels_last=channels_last)
        for _ in range(2):
            [(images, labels)], [(others, numbers)] = few, expected
            assert torch.equal(images, others) and torch.equal(labels, numbers)
            assert images.stride() == others.stride()


# --- copies


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
@pytest.mark.parametrize("worker_type", ["thread", "process"])
@pytest.mark.parametrize("transform", [RandomResizedCrop(20), np.ascontiguousarray], ids=["fused", "callable"])
def test_a_loader_pickles_at_any_time(uint8_lmdb, cls, worker_type, transform):
    ours = cls(uint8_lmdb / "train.lmdb", 4, transform=transform, num_workers=2, worker_type=worker_type, device="cpu",
               channels_last=True, dtype=torch.float16)
    expected = [frozen(ours), frozen(ours)]
    ours.set_epoch(0)
    running = iter(ours)
    held = [next(running) for _ in range(2)]
    copies = [pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)]  # while workers are at work
    state = ours.state_dict()
    assert frozen(itertools.chain(held, running)) == expected[0]
    for other in copies:
        assert other.state_dict() == state and other.stats().batches == 0
        assert frozen(other) == expected[1]  # as it would be in the loader itself after an epoch that is left early
        other.load_state_dict(state)
        assert frozen(other) == expected[0][2:]
        other.close()
    ours.close()
    with pytest.raises(RuntimeError, match="the loader is closed"):
        iter(pickle.loads(pickle.dumps(ours)))


# --- defaults of torch


@contextlib.contextmanager
def default(what):
    """Another device or dtype of new tensors."""
    try:
        (torch.set_default_dtype if isinstance(what, torch.dtype) else torch.set_default_device)(what)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("what", ["meta", torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("options", [
    {}, {"normalize": (MEAN, STD)}, {"normalize": (MEAN, STD), "dtype": torch.bfloat16}, {"dtype": torch.float32},
    {"device": "cpu", "normalize": (MEAN, STD)}, {"num_workers": 0}, {"transform": None}, {"channels_last": True},
    {"transform": CenterCrop(20, 32, antialias=False)}, {"transform": np.ascontiguousarray},
    {"worker_type": "process"}, {"worker_type": "process", "transform": np.ascontiguousarray}], ids=str)
def test_defaults_of_torch_change_nothing(loader, options, what):
    expected = frozen(loader(**options))
    with default(what):
        batches = list(loader(**options))
    assert {tensor.device.type for images, labels in batches for tensor in (*images, labels)} == {"cpu"}
    assert frozen(batches) == expected


# --- options


@pytest.mark.parametrize("option, value", [
    ("batch_size", 0), ("batch_size", -1), ("batch_size", 2.5), ("batch_size", "4"), ("batch_size", None),
    ("num_workers", -1), ("num_workers", 1.5), ("num_workers", "2"), ("prefetch", 0), ("prefetch", 1.0)])
def test_a_wrong_number_is_refused(loader, option, value):
    with pytest.raises((ValueError, TypeError), match=f"{option} must be an? .*integer.*, not "):
        loader(**{option: value})


@pytest.mark.parametrize("option", ["batch_size", "num_workers", "prefetch"])
def test_numpys_integers_are_integers(loader, option):
    assert len(list(loader(**{option: np.int64(5)}))) > 0


@pytest.mark.parametrize("transform", ["RandomResizedCrop", 224, (224, 224)])
def test_a_wrong_transform_is_refused(loader, transform):
    with pytest.raises(TypeError, match="must be RandomResizedCrop, CenterCrop, a callable, a list or Compose of such"):
        loader(transform)


class Gray(RandomResizedCrop):
    """Called for each image, and not fused: it has something to be called."""

    def __call__(self, pixels):
        return np.full((*self.window, 3), 127, np.uint8)


class Mirrored(CenterCrop):
    """Fused, with a plan of its own."""

    def plan(self, heights, widths, positions, seed, epoch):
        plan = super().plan(heights, widths, positions, seed, epoch)
        plan[:, FLIP] = 1
        return plan


@pytest.mark.parametrize("worker_type", ["thread", "process"])
def test_a_class_derived_from_a_crop_does_what_it_defines(loader, worker_type):
    images = first_images(loader(Gray((6, 8)), worker_type=worker_type))
    assert images.shape == (4, 3, 6, 8) and (images == 127).all()
    mirrored = first_images(loader(Mirrored(20, 32), worker_type=worker_type))
    assert torch.equal(mirrored, first_images(loader(CenterCrop(20, 32))).flip(3))


class Planned:
    size = window = (8, 8)
    scaled_decode = fast_decode = False
    antialias = True

    def plan(self, heights, widths, positions, seed, epoch):
        raise AssertionError


def test_a_plan_alone_makes_no_transform(loader):
    with pytest.raises(TypeError, match="must be RandomResizedCrop, CenterCrop, a callable, a list or Compose of such"):
        loader(Planned())


class Negative:
    def __call__(self, pixels):
        return 255 - pixels


@pytest.mark.parametrize("transform", [RandomResizedCrop, CenterCrop, Gray, Negative])
def test_a_class_in_place_of_an_instance_is_refused(loader, transform):
    with pytest.raises(TypeError, match=f"transform must be an instance, such as {transform.__name__}\\(...\\), not"):
        loader(transform)


def test_a_class_that_makes_images_is_a_callable(loader):
    class Image(np.ndarray):
        def __new__(cls, pixels):
            return pixels[:8, :8].view(cls)

    assert first_images(loader(Image)).shape == (4, 3, 8, 8)


def test_dropping_all_there_is_is_refused(loader):
    with pytest.raises(ValueError, match="nothing is left of 10 samples per rank with batch_size=11, drop_last=True "
                                         "and uneven='keep'; use a smaller batch_size, drop_last=False or "):
        loader(batch_size=11, drop_last=True)


@pytest.mark.parametrize("normalize", [((123.7, 116.3, 103.5), (0.2, 0.2, 0.2)), (MEAN, (58.4, 57.1, 57.4)),
                                       (MEAN, (0.2, 0, 0.2)), (MEAN[:2], STD), (MEAN, 0.5), (MEAN,), (MEAN, STD, STD),
                                       MEAN, (MEAN, ("a", "b", "c")), ((float("nan"),) * 3, STD)])
def test_a_wrong_normalization_is_refused(loader, normalize):
    with pytest.raises((ValueError, TypeError), match="normalize"):
        loader(normalize=normalize)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_mean_and_std_are_any_three_numbers(loader, kind):
    expected = first_images(loader(normalize=(MEAN, STD)))
    assert torch.equal(first_images(loader(normalize=(kind(MEAN), kind(STD)))), expected)
    assert torch.equal(first_images(loader(normalize=kind([MEAN, STD]))), expected)


def test_normalizing_to_integers_is_refused(loader):
    with pytest.raises(ValueError, match="normalize gives fractions, so dtype must be a floating one, not torch.uint8"):
        loader(normalize=(MEAN, STD), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", ["float16", np.float32, float])
def test_a_dtype_that_is_not_torchs_is_refused(loader, dtype):
    with pytest.raises((TypeError, ValueError), match="dtype must be"):
        loader(dtype=dtype)


@pytest.mark.parametrize("device", ["abacus", "gpu", "cuda 1", 1.5, ("cuda", 0)])
def test_an_unknown_device_is_refused(loader, device):
    with pytest.raises(ValueError, match=f"device must be one as torch names them, such as 'cpu', 'cuda',.* not "
                                         f"{re.escape(repr(device))}"):
        loader(device=device)


def test_an_unknown_option_is_refused(loader):
    with pytest.raises(TypeError, match="LMDBLoader got .* 'num_worker'; did you mean num_workers\\?"):
        loader(num_worker=3)


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", None])
def test_a_wrong_epoch_is_refused(loader, epoch):
    with pytest.raises((ValueError, TypeError), match="epoch must be a non-negative integer"):
        loader().set_epoch(epoch)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None])
def test_a_wrong_seed_is_refused(loader, seed):
    with pytest.raises((ValueError, TypeError), match="seed must be a non-negative integer"):
        loader(seed=seed)


# --- mistakes


@pytest.fixture
def path(uint8_lmdb):
    return uint8_lmdb / "train.lmdb"


def test_a_dataloader_over_a_loader_is_told_what_to_take(path):
    with LMDBLoader(path, 4) as batches, pytest.raises(TypeError, match="whole batches.*LMDBDataset"):
        next(iter(torch.utils.data.DataLoader(batches)))


@pytest.mark.parametrize("name", ["batch_size", "num_workers", "dataflow", "labels", "sampler", "batch_sampler"])
def test_what_is_fixed_cannot_be_set(path, name):
    with LMDBLoader(path, 4) as batches:
        for _ in range(2):
            with pytest.raises(AttributeError, match=f"{name}.* of '?LMDBLoader"):
                setattr(batches, name, 8)
            getattr(batches, name)
        assert len(list(batches)) == 6 and len(batches.labels) == 23 and batches.batch_size == 4


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader, LMDBDataset, LMDBIterDataset])
def test_options_that_are_taken_once_cannot_be_set(path, cls):
    """All but those that the documents name: an assignment would change nothing, without a word."""
    made = cls(path, 4) if cls in (LMDBLoader, LMDBIterLoader) else cls(path)
    settable = {"transform"} if cls in (LMDBLoader, LMDBIterLoader) else {"transform", "target_transform", "image_type"}
    for name in {*inspect.signature(cls).parameters} - settable:
        with pytest.raises(AttributeError, match=f"^{name} of {cls.__name__} is an option, taken when a {cls.__name__} "
                           f"is made: make another one with {name}=$"):
            setattr(made, name, 8)
    for name in settable:
        setattr(made, name, None)
    made.noted = 1  # of the caller's own
    assert len(made) == len(list(made))
    made.close()


def test_a_derived_class_may_keep_its_options_under_their_names(path):
    class Own(LMDBLoader):
        def __init__(self, path, seed):
            super().__init__(path, 4, seed=seed)
            self.seed = seed

    with Own(path, 3) as batches:
        assert batches.seed == 3 and len(list(batches)) == 6


@pytest.mark.parametrize("cls, name, near", [
    (LMDBLoader, "num_worker", "num_workers"), (LMDBLoader, "wold_size", "world_size"),
    (LMDBIterLoader, "shufle_buffer", "shuffle_buffer"), (LMDBIterLoader, "prefetch_factor", "prefetch"),
    (LMDBIterLoader, "batchsize", "batch_size")])
def test_a_misspelt_option_is_told_the_nearest(path, cls, name, near):
    with pytest.raises(TypeError, match=f"{cls.__name__} got an unexpected option '{name}'; did you mean {near}\\?"):
        cls(path, 4, **{name: 1})


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader, LMDBDataset, LMDBIterDataset])
def test_every_option_is_spelled_out_and_documented(cls):
    options = inspect.signature(cls).parameters.values()
    assert all(option.kind in (option.POSITIONAL_OR_KEYWORD, option.KEYWORD_ONLY) for option in options)
    assert all(option.annotation is not option.empty for option in options)
    assert documented(cls).keys() == {option.name for option in options}


@pytest.mark.parametrize("one, other", [(LMDBLoader, LMDBIterLoader), (LMDBDataset, LMDBIterDataset)])
def test_options_that_two_classes_share_are_told_in_the_same_words(one, other):
    ours, others = documented(one), documented(other)
    different = {name for name in ours.keys() & others.keys() if ours[name] != others[name]}
    assert different <= {"seed", "rank", "uneven"}  # which are told of the order of each


def documented(cls):
    """The text of each option in the docstring."""
    section = inspect.getdoc(cls).partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    ([a-z]\S*(?:, \S+)*): (.*?)(?=^    [a-z]|\Z)", section, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def test_an_option_like_no_other_is_told_all(path):
    with pytest.raises(TypeError, match="LMDBLoader got an unexpected option 'xyz'; its options are path, batch_size, "
                                        "shuffle, .*worker_type.*channels_last") as caught:
        LMDBLoader(path, 4, xyz=1)
    assert not re.search(r"\b(self|reader|pointers|args|options, )\b", str(caught.value).partition("; its")[2])


def test_an_option_of_a_derived_class_is_named_with_it(path):
    class Mine(LMDBLoader):
        def __init__(self, path, *, flavour="sweet", **options):
            super().__init__(path, 4, **options)

    with pytest.raises(TypeError, match="Mine got an unexpected option 'flavor'; did you mean flavour\\?"):
        Mine(path, flavor="sour")


def test_the_sampler_tells_the_epoch(path):
    with LMDBLoader(path, 4) as ours, LMDBLoader(path, 4) as reference:
        for epoch in (3, 3, 0):
            ours.sampler.set_epoch(epoch)
            reference.set_epoch(epoch)
            assert frozen(ours) == frozen(reference)
        state = ours.state_dict() | {"epoch": 2, "samples": 8}
        ours.load_state_dict(state)
        ours.sampler.set_epoch(2)  # keeps the place
        assert ours.state_dict() == state and len(list(ours)) == 4
        with pytest.raises(ValueError, match="epoch must be a non-negative integer, not -1"):
            ours.sampler.set_epoch(-1)


@pytest.mark.parametrize("worker_type", ["thread", "process"])
@pytest.mark.parametrize("result, message", [(lambda _: None, "return.* may be missing"),
                                             (lambda pixels: pixels[:0], "an image without pixels")])
def test_a_transform_that_gives_no_image_is_named_with_its_record(path, worker_type, result, message):
    with LMDBLoader(path, 4, transform=result, num_workers=1, worker_type=worker_type) as batches:
        with pytest.raises((TypeError, ValueError), match=message) as failed:
            next(iter(batches))
    if sys.version_info >= (3, 11):
        [note] = failed.value.__notes__
        assert str(path) in note and "key 0000" in note


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_at_once(path):
    with pytest.raises(ValueError, match="device='cuda' is not to be had here"):
        LMDBLoader(path, 4, device="cuda")


@pytest.mark.parametrize("transform, options", [
    (CenterCrop(16, 20), {}), (CenterCrop(16, 20), {"image_type": "pil"}), (lambda image: image[:16, :16], {}),
    (lambda image: image.crop((0, 0, 16, 16)), {"image_type": "pil", "dtype": torch.float32}), (None, {})])
def test_a_dataloader_of_the_loaders_parts_has_its_batches(tiled_lmdb, transform, options):
    with LMDBLoader(tiled_lmdb / "val.lmdb", 4, transform=transform, num_workers=1, **options) as loader:
        parts = torch.utils.data.DataLoader(loader.dataset, batch_sampler=loader.batch_sampler,
                                            collate_fn=loader.collate_fn)
        for (images, labels), (expected, expected_labels) in zip(list(parts), list(loader), strict=True):
            assert torch.equal(labels, expected_labels) and type(images) is type(expected)
            for image, other in zip(images, expected, strict=True):
                assert image.dtype == other.dtype and torch.equal(image, other)
