"""Where the time of loading goes, as figures and in words, with advice."""
import dataclasses

_LITTLE = 0.05  # of the loop's time: waiting for data less than that, it is not held up


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stats:
    """Where the time of one iteration went so far, in seconds. `print(stats)` says what limits it.

    Of the training loop, which add up to `seconds`:

    waited_s    for a batch that was not there yet; `first_batch_s` of it for the first
    finish_s    transferring and converting batches; without pin_memory, also waiting for what a GPU has to do before
    consumer_s  in the body of the loop: training

    Of the `workers` threads or processes, all together:

    storage_s    waiting for pages of the file, or for the disk to take requests for them
    decode_s     cutting out and decoding
    resize_s     resizing, into the batch
    transform_s  in a transform that is a callable
    python_s     the rest: pointers, crop boxes, the interpreter between the above
    blocked_s    ready to go on, and waiting for a processor or the GIL
    idle_s       having nothing to do, mostly because enough batches are ready

    queue_s: how long finished batches waited to be taken, all together. images, batches: yielded. processes: whether
    workers are processes, and not threads.
    """

    workers: int
    images: int
    batches: int
    seconds: float
    first_batch_s: float
    waited_s: float
    finish_s: float
    consumer_s: float
    storage_s: float
    decode_s: float
    resize_s: float
    transform_s: float
    python_s: float
    blocked_s: float
    queue_s: float
    processes: bool = False

    @property
    def idle_s(self) -> float:
        """Seconds in which workers had nothing to do."""
        return max(0.0, self.workers * self.seconds - sum(self._stages().values()))

    @property
    def images_per_second(self) -> float:
        """Of the iteration so far, its first batch included."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting(self) -> float:
        """The share of its time, 0 to 1, that the loop waited for data."""
        return self.waited_s / self.seconds if self.seconds else 0.0

    @property
    def limit(self) -> str:
        """What to make faster: "transfer" where that takes most of the loop's time, else "consumer" while data is ready
        when it is asked for, else the greatest of "storage", "decode", "resize", "transform", "python" and "blocked".
        """
        if self.finish_s > max(self.waited_s, self.consumer_s):
            return "transfer"
        if self.waiting < _LITTLE:
            return "consumer"
        stages = self._stages()
        return max(stages, key=lambda name: stages[name])

    @property
    def line(self) -> str:
        """A few words for a progress bar: "1,155 images/s, 38 % waiting for data (decode)"."""
        if not self.batches:
            return "no batch yet"
        return f"{self.images_per_second:,.0f} images/s, {self.waiting:.0%} waiting for data ({self.limit})".replace(
            "%", " %")

    def __str__(self) -> str:
        if not self.batches:
            return "no batch was loaded yet"
        busy = self._stages() | {"idle": self.idle_s}
        whole = sum(busy.values()) or 1.0
        shares = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in busy.items()).replace("%", " %")
        loop = " and ".join(f"{share:.0%} {what}" for what, share in (
            ("waiting for data", self.waiting), ("transferring and converting", self.finish_s / self.seconds),
            ("in its body", self.consumer_s / self.seconds)) if share >= 0.005).replace("%", " %")
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return (f"{self.images:,} images in {self.seconds:.1f} s: {self.images_per_second:,.0f} images/s, the first "
                f"batch after {self.first_batch_s:.2f} s\nthe loop spent {loop}; a finished batch waited "
                f"{self.queue_s / self.batches:.2f} s for it\n{workers}: {shares}\n{self._advice()}")

    def _advice(self) -> str:
        words = _WORDS[self.limit]
        return words if self.processes else words + _FOR_THREADS.get(self.limit, "")

    def _stages(self) -> dict[str, float]:
        return {"storage": self.storage_s, "decode": self.decode_s, "resize": self.resize_s,
                "transform": self.transform_s, "python": self.python_s, "blocked": self.blocked_s}


_WORDS = {
    "consumer": "data is ready when it is asked for: training is the limit",
    "transfer": "transferring and converting batches is the limit: without a GPU, normalize and dtype cost processor "
                "time, and uint8 batches do not",
    "storage": "storage is the limit: a file that fits in memory, is smaller, or is on a faster disk",
    "decode": "decoding is the limit: more workers on more processors, a tiled or smaller jpeg, fast_decode=True, or "
              "uint8",
    "resize": "resizing is the limit: more workers on more processors, a file of smaller images, or antialias=False",
    "transform": "the transform is the limit: more workers, or less of it",
    "python": "the interpreter is the limit: larger batches",
    "blocked": "workers wait for a processor, which others have, or for the GIL: fewer workers",
}
_FOR_THREADS = {
    "transform": ", or worker_type='process' if it holds the GIL",
    "python": ", or, for a transform in Python, worker_type='process'",
    "blocked": ", or, for a transform in Python, worker_type='process'",
}
