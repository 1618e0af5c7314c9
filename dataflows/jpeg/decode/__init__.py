"""Pixels of JPEGs without libjpeg, and exactly as libjpeg-turbo gives them.

    inverse_dct  coefficients to samples
    colors       planes of samples to RGB, with interpolated chroma
"""
