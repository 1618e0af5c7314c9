"""A tiny ImageNet, and each form it comes in: three classes whose order by ILSVRC2012_ID is not that of their wnids."""
import io
import tarfile

import numpy as np
from scipy.io import savemat

from helpers.photos import CLASSES, SIZES, encode_jpeg, make_photo

WORDS = {CLASSES[0]: "tench, Tinca tinca", CLASSES[1]: "goldfish, Carassius auratus", CLASSES[2]: "weißer Hai"}
IDS = {CLASSES[2]: 1, CLASSES[0]: 2, CLASSES[1]: 3}
PARENTS = {"n00000001": 4, "n00000002": 5}  # synsets with children, which are no classes
VAL_CLASSES = [CLASSES[i] for i in (1, 2, 0, 0, 1, 2, 1)]  # of images 1 to 7


def photo(number):
    height, width = SIZES[number % len(SIZES)]
    return encode_jpeg(make_photo(height, width, number))


TRAIN = {f"{wnid}/{wnid}_{number}.JPEG": photo(10 * i + number)
         for i, wnid in enumerate(CLASSES) for number in (1, 10, 2)}
VAL = {f"ILSVRC2012_val_{number:08d}.JPEG": photo(100 + number) for number in range(1, 8)}

# What each form must give: contents and labels in torchvision's order.
TRAIN_SAMPLES = [(TRAIN[name], CLASSES.index(name.split("/")[0])) for name in sorted(TRAIN)]
VAL_SAMPLES = [(VAL[name], CLASSES.index(wnid)) for wnid, name in sorted(zip(VAL_CLASSES, VAL))]


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar_of(files, format=tarfile.GNU_FORMAT):
    """The bytes of a tar of `files`, in their order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def class_tars(files, format=tarfile.GNU_FORMAT):
    """The tar of a tar per class, of files CLASS/IMAGE."""
    classes = dict.fromkeys(name.split("/")[0] for name in files)
    return tar_of({f"{wnid}.tar": tar_of({name.split("/")[1]: content for name, content in files.items()
                                          if name.startswith(f"{wnid}/")}, format) for wnid in classes}, format)


def meta_mat(ids=IDS, words=WORDS, parents=PARENTS):
    """The devkit's meta.mat: a column of structures, classes and parents mixed in the order of their IDs."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height",
              "num_train_images")
    rows = sorted([(number, wnid, words.get(wnid, "animal"), "a gloss", 2 * (wnid in parents),
                    np.array([1, 2] if wnid in parents else []), float(wnid in parents), 1300)
                   for wnid, number in {**ids, **parents}.items()])
    table = np.empty((len(rows), 1), [(field, object) for field in fields])
    table[:, 0] = rows
    stream = io.BytesIO()
    savemat(stream, {"synsets": table}, do_compression=True)
    return stream.getvalue()


def lines(values, end="\n"):
    return "".join(f"{value}{end}" for value in values).encode()


SYNSET_LIST = {"imagenet_2012_validation_synset_labels.txt": lines(VAL_CLASSES)}
SOLUTION = {"LOC_val_solution.csv": lines(["ImageId,PredictionString"] + [  # in an order of its own, as Kaggle's is
    f"{name.split('.')[0]},{f'{wnid} 1 2 30 40 ' * (1 + i % 2)}" for i, (name, wnid) in
    sorted(enumerate(zip(VAL, VAL_CLASSES)), key=lambda item: -item[0])])}
MAPPING = {"LOC_synset_mapping.txt": lines(f"{wnid} {WORDS[wnid]}" for wnid in CLASSES)}
DEVKIT = {"ILSVRC2012_devkit_t12/readme.txt": b"...", "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(),
          "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": lines(IDS[w] for w in VAL_CLASSES)}


def _devkit_archive():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in DEVKIT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


ARCHIVE = {"ILSVRC2012_devkit_t12.tar.gz": _devkit_archive()}
TRUTHS = {"synset list": SYNSET_LIST, "solution": SOLUTION, "devkit": DEVKIT, "devkit archive": ARCHIVE}


def under(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


VAL_FOLDERS = under("val", {f"{wnid}/{name}": VAL[name] for name, wnid in zip(VAL, VAL_CLASSES)})
KAGGLE = {**under("ILSVRC/Data/CLS-LOC", under("train", TRAIN) | under("val", VAL)), **SOLUTION, **MAPPING,
          "ILSVRC/ImageSets/CLS-LOC/val.txt": b"ILSVRC2012_val_00000001 1\n", "LOC_sample_submission.csv": b"..."}
TRAIN_TAR = {"ILSVRC2012_img_train.tar": class_tars(TRAIN)}
VAL_TAR = {"ILSVRC2012_img_val.tar": tar_of(dict(reversed(VAL.items())))}

# By name: the source's files, the split, where below the folder --source points, and whether it has class names.
FORMS = {
    "class folders, train": (under("train", TRAIN), "train", "", False),
    "class folders, val": (VAL_FOLDERS, "val", "", False),
    "class folders beside a devkit": ({**under("train", TRAIN), **ARCHIVE}, "train", "", True),
    "class folders themselves": (under("train", TRAIN) | TRAIN_TAR, "train", "train", False),
    "official tar, train": (TRAIN_TAR, "train", "", False),
    "official tar in pax": ({"ILSVRC2012_img_train.tar": class_tars(TRAIN, tarfile.PAX_FORMAT)}, "train", "", False),
    "official tar beside folders": (TRAIN_TAR | under("train", TRAIN) | DEVKIT, "train",
                                    "ILSVRC2012_img_train.tar", True),
    "flat, all ground truths": ({**under("val", VAL), **SYNSET_LIST, **SOLUTION, **ARCHIVE}, "val", "", True),
    "flat, ground truth among the images": (under("val", VAL | SYNSET_LIST), "val", "", False),
    "flat, as the tar unpacks": (under("ILSVRC2012_img_val", VAL) | SYNSET_LIST, "val", "", False),
    **{f"Kaggle from {folder or 'the top'}, {split}": (KAGGLE, split, folder, True)
       for split in ("train", "val") for folder in ("", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC",
                                                    f"ILSVRC/Data/CLS-LOC/{split}")},
    **{f"{kind}, {name}": (images | truth, "val", "", "devkit" in name) for name, truth in TRUTHS.items()
       for kind, images in (("flat", under("val", VAL)), ("official tar", VAL_TAR))},
}
SAMPLES = {"train": TRAIN_SAMPLES, "val": VAL_SAMPLES}
