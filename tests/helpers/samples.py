"""Images and labels as a program gives them: a list of them, and what can be iterated over and no more."""
from helpers.photos import encode_jpeg, make_photo

COUNT = 40


def photo(number):
    return encode_jpeg(make_photo(40 + number, 60 + number % 7, number))


SAMPLES = [(photo(number), number % 3) for number in range(COUNT)]


class Stream:
    """Gives its samples in their order, any number of times; nobody knows how many there are."""

    def __init__(self, samples):
        self.samples = samples

    def __iter__(self):
        return iter(self.samples)
