"""What follows from measurements: images/s by hand-made figures, what limits them, and what is recommended."""
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.tools.advise.predict import (
    GPU,
    IN_ORDER,
    SHUFFLED,
    STORAGE,
    Storage,
    estimate,
    memory_rate,
    predict,
    quiet_rate,
    recommend,
    sample_size,
    with_loader,
    worker_counts,
)
from helpers.measurements import (
    AT_256,
    AT_500,
    COPY_STEPS,
    FORMATS,
    FULL,
    GB,
    HARD_DISK,
    JPEG_256,
    JPEG_320,
    PLAIN,
    SHORTER_256,
    SSD,
    TILED,
    UNKNOWN,
    measured,
)


def of(name, found=None, workers=4, gpu_rate=None):
    """The prediction for one format."""
    [one] = [each for each in predict(found or measured(), workers, gpu_rate) if each.name == name]
    return one


def the(name):
    [one] = [each for each in FORMATS if each.name == name]
    return one


# --- from memory


def test_with_the_threads_that_were_measured_the_measured_rate_is_the_prediction():
    for one, prediction in zip(FORMATS, predict(measured(), 4)):
        assert prediction.memory_images_per_s == prediction.images_per_s == one.images_per_s


@pytest.mark.parametrize("name, workers, rate", [
    (TILED, 1, 2000 * 600 / 1800),
    (TILED, 2, 2000 * 1100 / 1800),
    (TILED, 3, 2000 * 1450 / 1800),  # on the line between 2 and 4
    (PLAIN, 1, 1500 * 600 / 1800),  # scales like tiled JPEGs
    (FULL, 1, 6000 * 2000 / 6000),
    (AT_256, 3, 12_000 * 5000 / 6000),
    (TILED, 5, 2000), (TILED, 64, 2000),  # there are 4 processors
])
def test_other_numbers_of_threads_scale_as_those_that_were_measured(name, workers, rate):
    assert memory_rate(measured(), the(name), workers) == pytest.approx(rate)


def test_a_single_measured_thread_says_nothing_of_more():
    found = measured(workers=1, scaling_encoded=((1, 600.0),), scaling_pixels=((1, 2000.0),))
    assert memory_rate(found, the(TILED), 1) == memory_rate(found, the(TILED), 4) == 2000


@pytest.mark.parametrize("workers, rate", [(1, 625), (4, 2500), (8, 2500)])
def test_a_quiet_machine_has_time_for_as_many_images_as_its_processors(workers, rate):
    assert quiet_rate(measured(load=9.0), the(TILED), workers) == pytest.approx(rate)


# --- from the disk


@pytest.mark.parametrize("name, storage, loader, rate", [
    (FULL, HARD_DISK, SHUFFLED, 20 / 0.5),
    (FULL, HARD_DISK, IN_ORDER, 160 / 0.5),
    (TILED, HARD_DISK, SHUFFLED, 20 / 0.1),
    (TILED, HARD_DISK, IN_ORDER, 160 / 0.1),
    (TILED, SSD, SHUFFLED, 2000),  # the disk gives 10,000
    (TILED, UNKNOWN, SHUFFLED, None),
])
def test_the_disk_gives_its_rate_by_the_bytes_of_an_image(name, storage, loader, rate):
    assert with_loader(measured(storage=storage), the(name), 4, loader).disk_images_per_s == rate


def test_reading_takes_time_from_the_processors_that_decode():
    storage = Storage(10_000, 10_000, cpu_s_per_mb=0.001, cold=True, about="")  # 0.5 ms an image, on 4 processors
    for workers, rate in ((4, 1 / (1 / 6000 + 0.000125)), (1, 1 / (1 / 2000 + 0.0005))):
        found = with_loader(measured(storage=storage), the(FULL), workers, SHUFFLED)
        assert found.disk_images_per_s == pytest.approx(rate)


def test_a_file_fits_into_most_of_the_memory_that_is_available():
    found = measured(memory_bytes=100 * GB)  # files of 100 and 400 GB, and training needs some
    assert of(TILED, found).file_bytes == 100 * GB
    assert not of(TILED, found).fits
    assert of(TILED, measured(memory_bytes=125 * GB)).fits


def test_epochs_read_the_disk_when_the_file_does_not_fit():
    found = measured(memory_bytes=200 * GB, storage=HARD_DISK)
    assert of(TILED, found).images_per_s == 2000 and of(TILED, found).fits
    assert of(FULL, found).images_per_s == 320 and not of(FULL, found).fits
    assert of(FULL, found).memory_images_per_s == 6000


def test_what_is_unknown_of_a_disk_is_left_out():
    found = measured(memory_bytes=1, storage=UNKNOWN)
    assert (of(FULL, found).disk_images_per_s, of(FULL, found).images_per_s) == (None, 6000)


# --- what limits it


@pytest.mark.parametrize("found, name, gpu_rate, limit", [
    (measured(), TILED, None, "decoding"),
    (measured(), TILED, 2001, "decoding"),
    (measured(), TILED, 2000, GPU),
    (measured(), FULL, None, "resizing"),
    (measured(formats=(dataclasses.replace(the(FULL), steps=COPY_STEPS),)), FULL, None, "memory copy"),
    (measured(memory_bytes=1, storage=HARD_DISK), FULL, None, STORAGE),
    (measured(memory_bytes=1, storage=HARD_DISK), FULL, 300, GPU),
    (measured(memory_bytes=1), TILED, None, "decoding"),  # the disk is faster
])
def test_the_bottleneck_has_a_name(found, name, gpu_rate, limit):
    assert of(name, found, gpu_rate=gpu_rate).bottleneck == limit


def test_training_takes_no_more_than_the_gpu():
    for one, prediction in zip(FORMATS, predict(measured(), 4, 5000)):
        assert prediction.images_per_s == min(one.images_per_s, 5000)


# --- which loader


@pytest.mark.parametrize("found, gpu_rate, loader", [
    (measured(), None, SHUFFLED),
    (measured(storage=HARD_DISK), None, SHUFFLED),  # it fits into memory
    (measured(storage=HARD_DISK, memory_bytes=1), None, IN_ORDER),
    (measured(storage=HARD_DISK, memory_bytes=1), 150, SHUFFLED),  # random order gives 200
    (measured(storage=HARD_DISK, memory_bytes=1), 1000, IN_ORDER),
    (measured(memory_bytes=1), None, SHUFFLED),
    (measured(storage=UNKNOWN, memory_bytes=1), None, SHUFFLED),
    (measured(storage=dataclasses.replace(SSD, random_mb_s=185, sequential_mb_s=200), memory_bytes=1), None, SHUFFLED),
])
def test_the_full_shuffle_is_taken_unless_its_order_costs_something(found, gpu_rate, loader):
    assert of(TILED, found, gpu_rate=gpu_rate).loader == loader


# --- what is recommended


@pytest.mark.parametrize("gpu_rate, name, enough", [
    (500, TILED, True),
    (1800, TILED, True),
    (1850, FULL, True),  # with a tenth to spare
    (7000, AT_500, True),
    (8000, SHORTER_256, True),
    (10_000, AT_256, True),
    (20_000, AT_256, False),
])
def test_of_the_formats_that_feed_the_gpu_the_one_with_the_most_pixels_is_taken(gpu_rate, name, enough):
    best = recommend(measured(), 4, gpu_rate)
    assert (best.format, best.enough) == (name, enough)


def test_without_a_rate_to_reach_the_fastest_of_full_sized_images_is_taken():
    best = recommend(measured(), 4)
    assert (best.format, best.enough) == (AT_500, None)


def test_pixels_that_are_hardly_faster_are_not_worth_their_bytes():
    slow = tuple(dataclasses.replace(one, images_per_s=2150) if one.name in (FULL, AT_500) else one for one in FORMATS)
    assert recommend(measured(formats=slow), 4).format == TILED


def test_a_small_jpeg_is_taken_where_its_file_alone_is_fast_enough():
    """Pixels of any size are too slow on this disk, and so are full-sized JPEGs."""
    best = recommend(measured(memory_bytes=1, storage=HARD_DISK), 4, 3000)
    assert (best.format, best.loader, best.enough) == (JPEG_320, IN_ORDER, True)
    assert recommend(measured(memory_bytes=1, storage=HARD_DISK), 4, 4000).format == JPEG_256


def test_on_a_slow_disk_the_small_file_wins():
    assert recommend(measured(memory_bytes=1, storage=HARD_DISK), 4).format == TILED


def test_a_file_that_does_not_fit_is_not_recommended_for_a_disk_that_nobody_knows():
    assert recommend(measured(memory_bytes=200 * GB, storage=UNKNOWN), 4).format == TILED
    assert recommend(measured(memory_bytes=1, storage=UNKNOWN), 4, 100).format == TILED  # the first, of equals


@pytest.mark.parametrize("gpu_rate, workers", [(100, 1), (600, 1), (1000, 2), (1200, 3), (1800, 4)])
def test_the_fewest_workers_that_are_enough_are_recommended(gpu_rate, workers):
    best = recommend(measured(), 4, gpu_rate)
    assert (best.format, best.workers) == (TILED, workers)
    assert best.images_per_s >= 1.1 * gpu_rate
    assert best.images_per_s == memory_rate(measured(), the(TILED), workers)


def test_no_more_workers_than_allowed_are_recommended():
    assert recommend(measured(), 2, 1800).workers <= 2
    assert recommend(measured(), 64).workers <= 4


def test_workers_that_add_nothing_are_left_out():
    flat = measured(scaling_pixels=((1, 4000.0), (2, 5900.0), (4, 6000.0)))
    assert recommend(flat, 4).workers == 2


@pytest.mark.parametrize("pause, batches", [(1.0, 2), (2.0, 2), (2.1, 3), (5.5, 6), (100.0, 8)])
def test_prefetch_covers_the_longest_wait(pause, batches):
    formats = tuple(dataclasses.replace(one, pause=pause) for one in FORMATS)
    assert recommend(measured(formats=formats), 4).prefetch == batches


# --- in general

rates = st.floats(1, 1e5)


@given(rates, rates, rates, st.floats(0, 0.01), st.integers(1, 10**13), st.integers(1, 8), st.none() | rates)
def test_predictions_are_within_what_limits_them(sequential, random, more, cpu_s, memory, workers, gpu_rate):
    storage = Storage(sequential, random, cpu_s, True, "")
    found = measured(storage=storage, memory_bytes=memory)
    better = measured(storage=Storage(sequential + more, random + more, cpu_s, True, ""), memory_bytes=2 * memory)
    for one, two in zip(predict(found, workers, gpu_rate), predict(better, workers, gpu_rate)):
        assert 0 < one.images_per_s <= one.memory_images_per_s
        assert one.disk_images_per_s <= one.memory_images_per_s
        assert one.images_per_s <= (gpu_rate or one.images_per_s)
        # A better machine is no slower; the full shuffle, where it becomes nearly as fast, is preferred.
        assert two.images_per_s >= 0.9 * one.images_per_s
    best = recommend(found, workers, gpu_rate)
    assert best.format in {one.name for one in found.formats} and 1 <= best.workers <= min(workers, 4)
    assert best.enough is (None if gpu_rate is None else best.images_per_s >= gpu_rate)


# --- sizes and samples


def test_sizes_that_go_with_the_stored_ones_are_concluded_from_them():
    stored = [100, 400, 1000, 100]
    assert estimate([1.04 * one for one in stored], stored, 250, 1000) == (pytest.approx(260), pytest.approx(0))


def test_sizes_that_do_not_are_concluded_from_their_own_mean():
    mean, error = estimate([99, 101, 100, 100], [100, 400, 5000, 100], 250, 10**9)
    assert mean == 100
    assert error == pytest.approx((2 / 3 / 4) ** 0.5 / 100)  # standard deviation / square root of the count


def test_a_sample_that_is_everything_leaves_no_error():
    assert estimate([1, 2, 3], [3, 2, 1], 2, 3) == (2, 0)
    assert estimate([5], [7], 7, 1) == (5, 0)


@pytest.mark.parametrize("most, seconds_each, bytes_each, expected", [
    (300, 0.001, 1000, 300), (300, 0.1, 1000, 100), (300, 0.001, 100_000, 100), (300, 5, 1000, 8), (5, 5, 1000, 5)])
def test_a_sample_is_as_large_as_time_and_room_allow(most, seconds_each, bytes_each, expected):
    assert sample_size(most, seconds_each, bytes_each, seconds=10, nbytes=10_000_000) == expected


@pytest.mark.parametrize("most, counts", [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]),
                                          (12, [1, 2, 4, 8, 12])])
def test_scaling_is_measured_at_powers_of_two(most, counts):
    assert worker_counts(most) == counts
