"""Batches of images and labels as what compares by content."""


def frozen(batches):
    """Batches as tuples that compare by content."""
    return [(images.numpy().tobytes(), tuple(labels.tolist())) for images, labels in batches]


def samples(batches):
    """(pixels, label) of each sample."""
    return [(image.numpy().tobytes(), label) for images, labels in batches
            for image, label in zip(images, labels.tolist())]
