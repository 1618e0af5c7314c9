"""A row of a plan as two lines of the resize: one down, one across."""
from dataflows.images.compiled.resample import Line


def lines(row: list[int], size: tuple[int, int], region: list[int]) -> tuple[Line, Line]:
    """The lines down and across that make a window of `size` (height, width) as a row of a plan says, from pixels of
    its region (top, left, height, width of the image) in memory."""
    top, left, height, width, to_height, to_width, y, x, _ = row
    whole = (y + size[0], x + size[1]) == (to_height, to_width)
    return (_line(height, to_height, y, size[0], region[0] - top, region[2], whole),
            _line(width, to_width, x, size[1], region[1] - left, region[3], whole))


def _line(side: int, to: int, first: int, count: int, origin: int, samples: int, whole: bool) -> Line:
    """As resize.resize_into has torch do it. Where the window does not end where the box ends, torch is given scales,
    and of what lies behind the region it sees one sample."""
    limit, pixels = min(side, origin + samples + 1), first + count
    scale = side / to if whole else 1 / (to / side)
    if not whole and to != side and pixels == limit:
        pixels += 1
    return Line(0.0, scale, max(scale, 1.0), limit, pixels, first, count, origin, samples)
