"""Pictures of what an LMDB holds.

    picture         a contact sheet of samples
    views           records before and after the crop
    page            one HTML page with the sheet, the facts and plots
    html            pieces of such a page, all text escaped; page.css is its style
    benchmark_bars  what benchmark.py wrote, as bars
"""
