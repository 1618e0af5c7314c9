"""What people look at: `python -m dataflows info`, `sheet` and `advise`. Nothing outside imports these.

    info/       what a file is and holds, in words
    sheet/      pictures of samples, and a page with everything
    advise/     what loading will cost on this machine
    text        text for a terminal: widths, bars, sizes
"""
