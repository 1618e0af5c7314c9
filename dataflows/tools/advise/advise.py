"""Says how to load a data set on this machine: what was measured, what follows from it, and what to do.

    print(advise("train.lmdb", gpu_rate=2500))

takes less than a minute. Predictions are for RandomResizedCrop(224) in batches of 256; `predict.py` has the rules.
"""
import dataclasses
import json
import math
import os
from typing import Any, Mapping

from dataflows.options import integer
from dataflows.order.order import Order
from dataflows.processors import default_workers
from dataflows.terminal import plural
from dataflows.tools.advise import predict
from dataflows.tools.advise.measure import measure
from dataflows.tools.text import aligned, size_text

_BUSY = 0.5  # processors' share that others take, before it is worth a word


@dataclasses.dataclass(frozen=True)
class Advice:
    """What `advise` finds; `str` of it is a report.

    workers: threads that predictions are for. gpu_rate: images/s that the training takes, or None.
    """

    workers: int
    gpu_rate: float | None
    measurements: predict.Measurements
    predictions: tuple[predict.Prediction, ...]
    recommendation: predict.Recommendation

    def as_dict(self) -> dict[str, Any]:
        """All of it, of what JSON knows; the fields are those of the classes in predict.py."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    def __str__(self) -> str:
        parts = _facts(self), _table(self), _detail(self.measurements), _Recommended(self).lines()
        return "\n\n".join("\n".join(lines) for lines in parts if lines)


def advise(source: str | os.PathLike[str], *, gpu_rate: float | None = None, num_workers: int | None = None,
           storage_options: Mapping[str, Any] | None = None) -> Advice:
    """Measures how fast this machine loads a data set in each format, and says which to take, and how.

    source: an LMDB, also at a URL, or a folder with one sub-folder per class, or one that holds such a folder named
    train.
    gpu_rate: images/s that the training takes, if that is known: then the least that keeps up is recommended.
    num_workers: threads to predict for, and the most to recommend; by default one per processor.
    storage_options: how to reach a URL, as LMDBLoader has them.

    Up to 300 images are dumped in each format into a temporary folder (see TMPDIR), which is removed in any case, and
    some 256 MB of the source are dropped from the page cache, to be read from the disk; of a URL, as much is read up to
    three times, if the server gives it within ten seconds. Raises FileNotFoundError where
    there is nothing, ValueError for options out of range and for files that are no LMDB or no images.
    """
    if gpu_rate is not None and not (isinstance(gpu_rate, (int, float)) and 0 < gpu_rate < math.inf):
        raise ValueError(f"gpu_rate must be a positive number of images/s, not {gpu_rate!r}")
    workers = default_workers() if num_workers is None else integer("num_workers", num_workers, 1)
    found = measure(os.fspath(source), workers, storage_options=storage_options)
    return Advice(workers, gpu_rate, found, predict.predict(found, workers, gpu_rate),
                  predict.recommend(found, workers, gpu_rate))


def _facts(advice: Advice) -> list[str]:
    """What the source and the machine are."""
    found, storage = advice.measurements, advice.measurements.storage
    is_now = f"stored as {found.stored}" if found.stored else "in files"
    lines = [f"{found.source}: {found.images:,} images, {is_now}; {found.sampled:,} of them were measured.",
             f"Storage: {storage.sequential_mb_s:,.0f} MB/s in order, {storage.random_mb_s:,.0f} MB/s in random order "
             f"({storage.about}).",
             f"Memory: {found.memory_bytes / 1e9:,.1f} GB can hold files{' of a disk here' if storage.remote else ''}.",
             f"images/s (threads): from JPEG {_scaling(found.scaling_encoded)}; from pixels "
             f"{_scaling(found.scaling_pixels)}."]
    if advice.workers > found.processors:
        lines.append(f"{found.processors} processors run no more than {found.processors} of {advice.workers} threads: "
                     f"loaders start no others.")
    if found.load > _BUSY * found.processors:
        quiet = (f"{predict.quiet_rate(found, one, advice.workers):,.0f} ({one.name})" for one in found.formats)
        lines.append(f"The machine was busy: before measuring, {found.load:.1f} processes wanted one of "
                     f"{found.processors} processors. All figures are of what was left. On a quiet machine these "
                     f"threads have time for {', '.join(quiet)} images/s.")
    if (found.stored or "").startswith("uint8"):
        lines.append("The file holds pixels. The JPEGs that were measured were made of them, in quality 90.")
    return lines


def _scaling(points: predict.Points) -> str:
    return ", ".join(f"{rate:,.0f} ({count})" for count, rate in points)


def _table(advice: Advice) -> list[str]:
    """A row for each format, under a line that says what the figures are."""
    place = "URL" if advice.measurements.storage.remote else "disk"
    rows = [("format", "file", "from memory", f"from {place}", "in training", "limited by",
             "CPU ms: copy, decode (Huffman), resize (linear)")]
    for one, found in zip(advice.predictions, advice.measurements.formats):
        disk = "?" if one.disk_images_per_s is None else f"{one.disk_images_per_s:,.0f}"
        steps = found.steps
        rows.append((one.name, size_text(one.file_bytes), f"{one.memory_images_per_s:,.0f}", disk,
                     f"{one.images_per_s:,.0f}", one.bottleneck,
                     f"{found.cpu_ms:.2f}: {steps.copy_ms:.2f}, {steps.decode_ms:.2f} ({steps.huffman_ms:.2f}), "
                     f"{steps.resize_ms:.2f} ({steps.resize_linear_ms:.2f})"))
    return [f'images/s with {plural(advice.workers, "thread")}, RandomResizedCrop(224), batches of 256. "in training" '
            f"is every epoch but the first.",
            "The command for a row is `dump-imagenet ... --format FORMAT`, with the format as it is written here:",
            *aligned(rows, left=(0, 5))]


def _detail(found: predict.Measurements) -> list[str]:
    """What shrunk formats give up; nothing where no image is shrunk."""
    rows = [(one.name, _percent(one.enlarged), f"{one.psnr_db:.1f}") for one in found.formats
            if one.psnr_db is not None]
    if not rows:
        return []
    return [f"Shrunk images lose detail. Crops of less than 224 pixels are enlarged and look soft: "
            f"{_percent(found.format(predict.TILED).enlarged)} of the crops of full-sized images, and more of these:",
            *aligned([("format", "crops enlarged", "PSNR against a full-sized image's crop, dB"), *rows])]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


class _Recommended:
    """What to do, and why: a sentence or two for each choice."""

    def __init__(self, advice: Advice) -> None:
        self.found, self.best = advice.measurements, advice.recommendation
        self.gpu_rate, self.most_workers = advice.gpu_rate, advice.workers
        self.predicted = next(one for one in advice.predictions if one.name == self.best.format)
        self.measured = self.found.format(self.best.format)
        # Images of the stored file are shrunk already, if it has a limit.
        stored, best = self.found.stored or "", self.best.format
        self.is_stored = stored == best or stored in predict.PIXELS and stored.startswith(f"{best} ")

    def lines(self) -> list[str]:
        """One for each choice, and what the limit is then."""
        batches = self.best.prefetch
        return [f"Format: {self._format()}", f"Loader: {self._loader()}", f"Workers: {self._workers()}",
                f"Prefetch: prefetch={batches}, {batches * predict.BATCH_BYTES / 1e6:,.0f} MB of batches: the longest "
                f"wait for one was {self.measured.pause:.1f} times the mean.", self._limit()]

    def _format(self) -> str:
        one = self.predicted
        how = "as it is" if self.is_stored else f"dump-imagenet ... --format {one.name}"
        error = f", give or take {_percent(2 * one.error)}" if one.error > 0.005 else ""
        less_detail = ". Crops of such small images show less detail" if one.name in predict.SMALL else ""
        return f"{how}, {size_text(one.file_bytes)}{error}: {self._why_this_format()}{less_detail}."

    def _why_this_format(self) -> str:
        is_tiled, tiles = self.best.format == predict.TILED, self.found.format(predict.TILED)
        tiled = predict.with_loader(self.found, tiles, self.most_workers, self.best.loader).images_per_s
        if self.gpu_rate is None:
            faster = ("no format of full-sized images is more than a tenth faster" if is_tiled
                      else f"pixels are {self.best.images_per_s / tiled:.1f} times as fast as tiled JPEGs here")
            return f"{faster}. Give --gpu-rate to learn what is fast enough"
        wanted = f"the {self.gpu_rate:,.0f} images/s that the GPU takes"
        if not self.best.enough:
            return f"no format gives {wanted}, and this one comes closest"
        if is_tiled:
            return f"it is the smallest that keeps all pixels, and it gives {wanted}"
        return f"of the formats that give {wanted}, it keeps the most pixels; tiled JPEGs give {tiled:,.0f}"

    def _loader(self) -> str:
        one, storage = self.predicted, self.found.storage
        if storage.remote:
            return self._from_a_server()
        too_large = "the file does not fit into memory"
        if one.loader == predict.IN_ORDER:
            in_order = self.found.permuted is False and self.is_stored
            block = ' with order="block", because the records are in the order of their source' if in_order else ""
            return (f"{one.loader}{block}: {too_large}. The disk gives {storage.random_mb_s:,.0f} MB/s in random order "
                    f"and {storage.sequential_mb_s:,.0f} in order.")
        loader = f"{one.loader}, a full shuffle"
        if one.fits:
            why = "the file fits into memory, where order costs nothing"
            if one.disk_images_per_s is not None:
                first = min(one.disk_images_per_s, self.gpu_rate or math.inf)
                why += f". The first epoch reads the disk, at {first:,.0f} images/s"
            return f"{loader}: {why}."
        if one.disk_images_per_s is None:
            return (f"{loader}, if the disk is an SSD, else {predict.IN_ORDER}: {too_large}, and the disk could not be "
                    f"measured.")
        return f"{loader}: {too_large}, but the disk is fast enough in random order."

    def _from_a_server(self) -> str:
        """In order wherever that is faster: a full shuffle takes a request for each record."""
        one, storage = self.predicted, self.found.storage
        cache = (f"cache_dir=FOLDER on a disk of this machine that has {size_text(one.file_bytes)} to spare reads from "
                 f"there after the first epoch, in any order")
        rates = (f"The server gives {storage.random_mb_s:,.0f} MB/s in random order, by a request for each record, and "
                 f"{storage.sequential_mb_s:,.0f} in order")
        if one.loader == predict.SHUFFLED:
            return f"{one.loader}, a full shuffle, of {self.found.images:,} requests an epoch. {rates}; {cache}."
        orders = {"shard": self.found.shards > 1, "block": self.found.permuted is False and self.is_stored}
        options = [f'order="{name}"' for name, fits in orders.items() if fits][:1]
        # What waits for its turn in the shuffle may take a quarter of the memory, and has to fit twice: see Store.room.
        most = int(self.found.memory_bytes / 8 / one.file_bytes * self.found.images)
        if most < Order("local").shuffle_buffer:
            options.append(f"shuffle_buffer={most}, as much as memory has room for")
        return f"{one.loader}{' with ' * bool(options)}{' and '.join(options)}. {rates}; {cache}."

    def _workers(self) -> str:
        best = self.best
        rate = f"num_workers={best.workers} gives {best.images_per_s:,.0f} images/s"
        if self.gpu_rate is None:
            return f"{rate}; more give less than a twentieth more." if best.workers < self.most_workers else f"{rate}."
        if not best.enough:
            return f"{rate}, {_percent(best.images_per_s / self.gpu_rate)} of what the GPU takes."
        if best.images_per_s < predict.MARGIN * self.gpu_rate:
            return f"{rate}: enough for the GPU, with little to spare."
        return f"{rate}: the fewest that give the GPU a tenth more than it takes."

    def _limit(self) -> str:
        """What limits it, and what would help."""
        limit, steps = self.predicted.bottleneck, self.measured.steps
        if limit == predict.GPU:
            return "Then the GPU is the limit, as it should be."
        sentences = [f"Then the limit is {limit}."]
        saved = (steps.resize_ms - steps.resize_linear_ms) / (steps.copy_ms + steps.decode_ms + steps.resize_ms)
        if limit != predict.STORAGE and saved > 0.1:
            sentences.append(f"antialias=False takes about {_percent(saved)} less time for an image, but crops alias.")
        if not self.predicted.fits and not self.found.storage.remote:
            sentences.append('cache="drop" keeps in memory what other programs have there; this file does not fit.')
        return " ".join(sentences)
