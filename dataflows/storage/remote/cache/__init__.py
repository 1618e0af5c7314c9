"""Whole files of URLs in a folder of this machine, `cache_dir`.

    entry        their names there, and which are let in
    fetching     brings them there, in a thread
    cached_file  a file that is read by ranges until it is there
"""
