"""A row of a plan as two lines of the resize: one down, one across."""
import numpy as np

from dataflows.images.compiled.resample import Line
from dataflows.jpeg.compiled import Int, compiled


@compiled
def lines(row: np.ndarray, height: Int, width: Int, region: np.ndarray) -> tuple[Line, Line]:
    """The lines down and across that make a window of (height, width) as a row of a plan says, int64 (9,), from pixels
    of its region, int64 (4,): top, left, height, width of the image."""
    whole = row[6] + height == row[4] and row[7] + width == row[5]
    return (_line(row[2], row[4], row[6], height, region[0] - row[0], region[2], whole),
            _line(row[3], row[5], row[7], width, region[1] - row[1], region[3], whole))


@compiled
def _line(side: Int, to: Int, first: Int, count: Int, origin: Int, samples: Int, whole: bool) -> Line:
    """As resize.resize_into has torch do it. Where the window does not end where the box ends, torch is given scales,
    and of what lies behind the region it sees one sample."""
    limit, pixels = min(side, origin + samples + 1), first + count
    scale = side / to if whole else 1.0 / (to / side)
    if not whole and to != side and pixels == limit:
        pixels += 1
    return Line(0.0, scale, max(scale, 1.0), limit, pixels, first, count, origin, samples)


@compiled
def lines_of_plane(row: np.ndarray, height: Int, width: Int, top: Int, left: Int, down: float, across: float, rows: Int,
                   columns: Int, antialias: bool) -> tuple[Int, Int, Line, Line]:
    """The same from a plane: (row and column of its first sample in memory that is needed, the lines).

    top, left: in the image, of the part that the plane has. down, across: its samples a pixel. rows, columns: how many
    samples it has; those that it lacks are of no weight in the window.
    """
    y, line_down = _line_of_plane(row[0] - top, row[2], row[4], row[6], height, down, rows, antialias)
    x, line_across = _line_of_plane(row[1] - left, row[3], row[5], row[7], width, across, columns, antialias)
    return y, x, line_down, line_across


@compiled
def _line_of_plane(start: Int, side: Int, to: Int, offset: Int, count: Int, factor: float, there: Int, antialias: bool
                   ) -> tuple[Int, Line]:
    first = max(int(np.floor(start * factor)), 0)
    end = min(int(np.ceil((start + side) * factor)), there)
    scale = side * factor / to
    return first, Line(start * factor - first + offset * scale, scale, max(scale, 1.0) if antialias else 1.0,
                       end - first, count, 0, count, 0, end - first)
