"""What a dump has left in a folder, and dumps in processes of their own."""
import hashlib
import multiprocessing
import os
import signal

from dump_imagenet import dump_split

WORK = "train.shards.partial"


def state(folder):
    """{name: checksum} of the files in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def dump(source, target, split="train", **options):
    return dump_split(source, target, split, progress=False, **options)


def die(*arguments, **options):
    """Ends this process as nothing else does."""
    os.kill(os.getpid(), signal.SIGKILL)


def start(source, target, before=None, **options):
    """A fork that dumps; `before` is called in it first."""
    def run():
        if before is not None:
            before()
        dump(source, target, **options)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def end(*processes, seconds=100):
    """The exit codes of processes."""
    for process in processes:
        process.join(seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
