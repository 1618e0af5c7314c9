"""How far the tasks are, as the driver reads it from the folder that all share."""
from dataflows.dump.shards.on_ray import worker
from dataflows.dump.write import Packed


def count(folder, number, run, images):
    """An attempt that has done so many images, of which it tells at once."""
    counting = worker._Count(str(folder), number, run)
    for _ in range(images):
        counting._next = 0.0
        counting(Packed(b""))


def test_the_attempt_that_came_furthest_counts(tmp_path):
    for number, run, images in ((0, "a", 3), (0, "a", 5), (1, "a", 2), (2, "a", 7), (1, "b", 9)):
        count(tmp_path, number, run, images)
    (tmp_path / "00001.a-broken.count").write_text("")
    (tmp_path / "00001.facts").write_text("1")
    assert worker.counted(str(tmp_path), "a", {0, 1}) == 5 + 2
    assert worker.counted(str(tmp_path), "c", {0, 1}) == worker.counted(str(tmp_path / "gone"), "a", {0}) == 0


def test_what_is_not_there_is_told(tmp_path):
    told = worker.dump(str(tmp_path), "train", 3, "a", None)
    assert told.startswith("shard 3: ") and f"does not see {tmp_path}/train.shards.partial: all machines must" in told
