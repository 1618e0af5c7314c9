"""Says how to load a data set on this machine: what was measured, what follows from it, and what to do.

    print(advise("train.lmdb", gpu_rate=2500))

takes less than a minute. Predictions are for RandomResizedCrop(224) in batches of 256; `predict.py` has the rules.
"""
import dataclasses
import json
import math
import os
from typing import Any

from dataflows.options import integer
from dataflows.processors import default_workers
from dataflows.terminal import plural
from dataflows.tools.advise.measure import measure
from dataflows.tools.advise.predict import (
    BATCH_BYTES,
    GPU,
    IN_ORDER,
    MARGIN,
    PIXELS,
    SHUFFLED,
    STORAGE,
    TILED,
    Format,
    Measurements,
    Prediction,
    Recommendation,
    epoch_rate,
    predict,
    quiet_rate,
    recommend,
)
from dataflows.tools.text import aligned

_BUSY = 0.5  # processors' share that others take, before it is worth a word


@dataclasses.dataclass(frozen=True)
class Advice:
    """What `advise` finds; `str` of it is a report.

    workers: threads that predictions are for. gpu_rate: images/s that the training takes, or None.
    """

    workers: int
    gpu_rate: float | None
    measurements: Measurements
    predictions: tuple[Prediction, ...]
    recommendation: Recommendation

    def as_dict(self) -> dict[str, Any]:
        """All of it, of what JSON knows; the fields are those of the classes in predict.py."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    def __str__(self) -> str:
        return "\n\n".join(("\n".join(_facts(self)), "\n".join(_table(self)), "\n".join(_Recommended(self).lines())))


def advise(source: str | os.PathLike[str], *, gpu_rate: float | None = None, num_workers: int | None = None) -> Advice:
    """Measures how fast this machine loads a data set in each format, and says which to take, and how.

    source: an LMDB, or a folder with one sub-folder per class, or one that holds such a folder named train.
    gpu_rate: images/s that the training takes, if that is known: then the least that keeps up is recommended.
    num_workers: threads to predict for, and the most to recommend; by default one per processor.

    Up to 300 images are dumped in each format into a temporary folder (see TMPDIR), which is removed in any case, and
    some 256 MB of the source are dropped from the page cache, to be read from the disk. Raises FileNotFoundError where
    there is nothing, ValueError for options out of range and for files that are no LMDB or no images.
    """
    if gpu_rate is not None and not (isinstance(gpu_rate, (int, float)) and 0 < gpu_rate < math.inf):
        raise ValueError(f"gpu_rate must be a positive number of images/s, not {gpu_rate!r}")
    workers = default_workers() if num_workers is None else integer("num_workers", num_workers, 1)
    found = measure(os.fspath(source), workers)
    return Advice(workers, gpu_rate, found, predict(found, workers, gpu_rate), recommend(found, workers, gpu_rate))


def _facts(advice: Advice) -> list[str]:
    """What the source and the machine are."""
    found, storage = advice.measurements, advice.measurements.storage
    is_now = f"stored as {found.stored}" if found.stored else "in files"
    lines = [f"{found.source}: {found.images:,} images, {is_now}; {found.sampled:,} of them were measured.",
             f"Storage: {storage.sequential_mb_s:,.0f} MB/s in order, {storage.random_mb_s:,.0f} MB/s in random order "
             f"({storage.about}).",
             f"Memory: {found.memory_bytes / 1e9:,.1f} GB can hold files. Threads, from one to more: "
             f"{_scaling(found, True)} images/s from JPEG, {_scaling(found, False)} from pixels."]
    if advice.workers > found.processors:
        lines.append(f"{found.processors} processors run no more than {found.processors} of {advice.workers} threads: "
                     f"loaders start no others.")
    if found.load > _BUSY * found.processors:
        lines.append(f"The machine was busy: {found.load:.1f} processes wanted one of {found.processors} processors "
                     f"before. All figures are of what was left. On a quiet machine these threads have time for "
                     f"{_quiet(advice)} images/s.")
    if (found.stored or "").startswith("uint8"):
        lines.append("JPEGs were encoded from the stored pixels, in quality 90, for their files are not at hand.")
    return lines


def _quiet(advice: Advice) -> str:
    found = advice.measurements
    return ", ".join(f"{quiet_rate(found, one, advice.workers):,.0f} ({one.name})" for one in found.formats)


def _scaling(found: Measurements, encoded: bool) -> str:
    points = found.scaling_encoded if encoded else found.scaling_pixels
    return ", ".join(f"{rate:,.0f} ({count})" for count, rate in points)


_HEADS = ("format", "file", "from memory", "from disk", "in training", "limited by",
          "CPU ms: copy, decode (Huffman), resize (linear)")


def _table(advice: Advice) -> list[str]:
    """A row for each format, under a line that says what the figures are."""
    rows = [_HEADS]
    for one, found in zip(advice.predictions, advice.measurements.formats):
        disk = "?" if one.disk_images_per_s is None else f"{one.disk_images_per_s:,.0f}"
        steps = found.steps
        rows.append((one.name, _size(one.file_bytes), f"{one.memory_images_per_s:,.0f}", disk,
                     f"{one.images_per_s:,.0f}", one.bottleneck,
                     f"{found.cpu_ms:.2f}: {steps.copy_ms:.2f}, {steps.decode_ms:.2f} ({steps.huffman_ms:.2f}), "
                     f"{steps.resize_ms:.2f} ({steps.resize_linear_ms:.2f})"))
    head = (f'images/s with {plural(advice.workers, "thread")}, RandomResizedCrop(224), batches of 256; "in training": '
            f'every epoch but the first:')
    return [head, *aligned(rows, left=(0, _HEADS.index("limited by")))]


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


class _Recommended:
    """What to do, and why: a sentence or two for each choice."""

    def __init__(self, advice: Advice) -> None:
        self.found, self.best = advice.measurements, advice.recommendation
        self.gpu_rate, self.most_workers = advice.gpu_rate, advice.workers
        self.predicted = next(one for one in advice.predictions if one.name == self.best.format)
        self.measured = self._format_named(self.best.format)

    def _format_named(self, name: str) -> Format:
        return next(one for one in self.found.formats if one.name == name)

    def lines(self) -> list[str]:
        """One for each choice, and what the limit is then."""
        return [f"Format: {self._format()}", f"Loader: {self._loader()}", f"Workers: {self._workers()}",
                f"Prefetch: {self._prefetch()}", self._limit()]

    def _format(self) -> str:
        one = self.predicted
        how = "as it is" if self.found.stored == one.name else f"dump-imagenet ... --format {one.name}"
        error = f", give or take {_percent(2 * one.error)}" if one.error > 0.005 else ""
        less_detail = ". Crops of such small images show less detail" if one.name in PIXELS[3:] else ""
        return f"{how}, {_size(one.file_bytes)}{error}: {self._why_this_format()}{less_detail}."

    def _why_this_format(self) -> str:
        is_tiled = self.best.format == TILED
        tiled, _ = epoch_rate(self.found, self._format_named(TILED), self.most_workers, self.predicted.loader)
        if self.gpu_rate is None:
            faster = self.best.images_per_s / tiled
            return ("no format of full-sized images is more than a tenth faster" if is_tiled
                    else f"pixels are {faster:.1f} times as fast as tiled JPEGs here"
                    ) + ". Give --gpu-rate to learn what is fast enough"
        wanted = f"the {self.gpu_rate:,.0f} images/s that the GPU takes"
        if not self.best.enough:
            return f"none gives {wanted}, and this comes closest"
        if is_tiled:
            return f"the smallest that keeps all pixels gives {wanted}"
        return f"of those that give {wanted}, it keeps the most pixels; tiled JPEGs give {tiled:,.0f}"

    def _loader(self) -> str:
        one, storage = self.predicted, self.found.storage
        too_large = "the file does not fit into memory"
        if one.loader == IN_ORDER:
            in_order = self.found.permuted is False and self.found.stored == one.name
            block = ' with order="block", for the records are in the order of their source' if in_order else ""
            return (f"{IN_ORDER}{block}: {too_large}, and the disk gives {storage.random_mb_s:,.0f} MB/s in random "
                    f"order, {storage.sequential_mb_s:,.0f} in order.")
        if one.fits:
            first = "" if one.disk_images_per_s is None else (
                f" The first epoch reads the disk, at {min(one.disk_images_per_s, self.gpu_rate or math.inf):,.0f} "
                f"images/s.")
            return f"{SHUFFLED}, a full shuffle: the file fits into memory, where order costs nothing.{first}"
        if one.disk_images_per_s is None:
            return (f"{SHUFFLED}, a full shuffle, if the disk is an SSD, else {IN_ORDER}: {too_large}, and the disk "
                    f"could not be measured.")
        return f"{SHUFFLED}, a full shuffle: {too_large}, but the disk is fast enough in random order."

    def _workers(self) -> str:
        best = self.best
        rate = f"num_workers={best.workers} gives {best.images_per_s:,.0f} images/s"
        if self.gpu_rate is None:
            return f"{rate}; more give less than a twentieth more." if best.workers < self.most_workers else f"{rate}."
        if not best.enough:
            return f"{rate}, {_percent(best.images_per_s / self.gpu_rate)} of what the GPU takes."
        if best.images_per_s < MARGIN * self.gpu_rate:
            return f"{rate}: enough for the GPU, with little to spare."
        return f"{rate}: the fewest that give the GPU a tenth more than it takes."

    def _prefetch(self) -> str:
        memory = f"{self.best.prefetch * BATCH_BYTES / 1e6:,.0f} MB"
        return (f"prefetch={self.best.prefetch}, {memory} of batches: the longest wait for one was "
                f"{self.measured.pause:.1f} times the mean.")

    def _limit(self) -> str:
        """What limits it, and what would help."""
        limit, steps = self.predicted.bottleneck, self.measured.steps
        if limit == GPU:
            return "The GPU is the limit then, as it should be."
        sentences = [f"The limit then is {limit}."]
        saved = (steps.resize_ms - steps.resize_linear_ms) / (steps.copy_ms + steps.decode_ms + steps.resize_ms)
        if limit != STORAGE and saved > 0.1:
            sentences.append(f"antialias=False takes about {_percent(saved)} less time for an image, and aliases.")
        if not self.predicted.fits:
            sentences.append('cache="drop" keeps what others have in memory, for this file does not fit in anyway.')
        return " ".join(sentences)
