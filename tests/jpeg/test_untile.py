"""Taking tiles out of a JPEG."""
import numpy as np
import pytest

from dataflows.images.codecs import decode
from dataflows.jpeg.cut import read_tiles
from dataflows.jpeg.tile import tile
from dataflows.jpeg.untile import untile
from helpers.photos import encode_jpeg, make_photo


@pytest.mark.parametrize("size", [(120, 160), (97, 131), (16, 752)])
def test_without_its_tiles_a_jpeg_shows_the_same_pixels_and_has_nearly_the_bytes_it_had(size):
    jpeg = encode_jpeg(make_photo(*size, seed=1))
    tiled = tile(jpeg)
    plain = untile(tiled)
    assert read_tiles(tiled) is not None and read_tiles(plain) is None
    np.testing.assert_array_equal(decode(plain), decode(jpeg))
    assert len(plain) - len(jpeg) <= 4 * size[0] // 16 + 16 < len(tiled) - len(jpeg)


def test_what_has_no_tiles_stays_as_it_is_and_what_is_damaged_is_refused():
    jpeg = encode_jpeg(make_photo(40, 60, seed=1))
    assert untile(jpeg) == jpeg and untile(b"no JPEG") == b"no JPEG"
    with pytest.raises(ValueError, match="damaged tiled JPEG"):
        untile(tile(jpeg)[:-1000])
