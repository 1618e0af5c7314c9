"""verify=True: what is read is what was written, or an error says which record is not."""
import shutil

import pytest

from dataflows import RandomResizedCrop
from dataflows.errors import RecordError
from dataflows.storage.store import Store
from uint_lmdb_iterloader import LMDBIterDataset, LMDBIterLoader
from uint_lmdb_loader import LMDBDataset, LMDBLoader

DAMAGED = 5  # a record that is neither the first nor the last: these are compared when a file is opened


@pytest.fixture(params=["jpeg_lmdb", "tiled_lmdb", "uint8_lmdb"])
def damaged(request, tmp_path):
    """The path of a file of which one bit in the last third of a record has changed, where no decoder objects."""
    folder = request.getfixturevalue(request.param)
    for name in ("train.lmdb", "train.lmdb.index.npz"):
        shutil.copy(folder / name, tmp_path / name)
    index = Store(tmp_path / "train.lmdb").index
    with open(tmp_path / "train.lmdb", "r+b") as file:
        at = int(index.offset[DAMAGED] + index.nbytes[DAMAGED] * 2 // 3)
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    return tmp_path / "train.lmdb"


@pytest.mark.parametrize("options", [{}, {"io": "pread"}, {"worker_type": "process", "num_workers": 1}], ids=str)
@pytest.mark.parametrize("transform", [None, RandomResizedCrop(16)], ids=str)
@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_a_changed_bit_is_an_error_of_its_record(damaged, cls, transform, options):
    with cls(damaged, 4, transform=transform, verify=True, **options) as loader:
        with pytest.raises(RecordError, match=rf"train.lmdb, key {DAMAGED:08d}: .* not what was written"):
            list(loader)


@pytest.mark.parametrize("cls", [LMDBDataset, LMDBIterDataset])
def test_datasets_find_it_too(damaged, cls):
    with pytest.raises(RecordError, match=f"key {DAMAGED:08d}"):
        list(cls(damaged, verify=True))


@pytest.mark.parametrize("cls", [LMDBLoader, LMDBIterLoader])
def test_sound_files_give_the_same_batches(tiled_lmdb, cls):
    plain, verified = (list(cls(tiled_lmdb / "train.lmdb", 4, transform=RandomResizedCrop(16), verify=verify))
                       for verify in (False, True))
    assert all((images == others).all() and (labels == numbers).all()
               for (images, labels), (others, numbers) in zip(plain, verified, strict=True))


def test_checksums_are_those_of_an_index(tiled_lmdb, tmp_path):
    shutil.copy(tiled_lmdb / "train.lmdb", tmp_path)
    with pytest.raises(ValueError, match="verify=True .* no index"):
        LMDBLoader(tmp_path / "train.lmdb", 1, verify=True)
