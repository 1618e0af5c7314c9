"""Pixels of JPEGs without libjpeg, and exactly as libjpeg-turbo gives them.

    inverse_dct  coefficients to samples
"""
