"""Waiting for what happens in other processes and threads; it ends as soon as that has happened."""
import time

PATIENCE_SECONDS = 30  # other programs may be at work on the machine


def eventually(condition, seconds=PATIENCE_SECONDS):
    give_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.01)
    return condition()
