"""A transform taken apart: what its steps may give to the conversions that are done for a batch."""
import numpy as np
import pytest
import torch
from PIL import Image

from dataflows import CenterCrop, RandomResizedCrop
from dataflows.images.image_types import planar
from dataflows.images.pipeline import Pipeline, pipeline_of
from dataflows.images.tail import Tail

RGB = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)


def to_first(image):
    """(1, H, W), as ToTensor makes it of a gray image."""
    rows = image if hasattr(image, "tolist") else np.asarray(image)
    return torch.tensor(rows.tolist()).float()[None] / 255


TAIL = Tail(to_tensor=True, scale=True, conversions=(to_first,))


@pytest.mark.parametrize("image", [Image.fromarray(RGB), RGB, torch.from_numpy(RGB), torch.rand(3, 6, 7)],
                         ids=["pil", "numpy", "tensor", "floats"])
def test_what_a_batch_can_be_made_of_waits_for_it(image):
    assert TAIL.converted(image) is image


@pytest.mark.parametrize("image", [Image.fromarray(RGB).convert("L"), RGB[:, :, 0], torch.ones(6, 7).short()],
                         ids=["pil", "numpy", "int16"])
def test_other_images_are_converted_as_the_user_says(image):
    assert torch.equal(Pipeline([], tail=TAIL).apply(image), to_first(image))


@pytest.mark.parametrize("result", [None, "text", {"image": 1}, (RGB, 1)], ids=["None", "str", "dict", "tuple"])
def test_what_is_no_image_cannot_be_converted(result):
    with pytest.raises(TypeError, match=f"gave {type(result).__name__} to its conversion.*must give an image"):
        TAIL.converted(result)
    assert Tail().converted(result) is result


def test_lists_may_be_empty():
    crop = CenterCrop(8, 8)
    assert pipeline_of([[], crop, [[]]]).crop is crop and pipeline_of([]).lines() == pipeline_of([[]]).lines()


def test_a_pipeline_is_no_function_that_leaves_its_crop_out():
    pipeline = pipeline_of([RandomResizedCrop(8), np.negative])
    assert not callable(pipeline) and pipeline_of(pipeline).crop is pipeline.crop
    with pytest.raises(TypeError, match="transform number 1 must be"):
        pipeline_of([pipeline, np.negative])


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.array([0], "datetime64[s]")])
def test_arrays_must_be_of_numbers(array):
    with pytest.raises(TypeError, match="of dtype .*: it must be of numbers"):
        planar(array)


def test_arrays_of_another_byte_order_become_those_of_this_machine():
    floats = planar(RGB.astype(">f4"))
    assert floats.dtype == np.float32 and np.array_equal(floats, RGB.transpose(2, 0, 1))
