"""Tools to look at files with, behind `python -m dataflows`. Nothing outside this folder imports them."""
