"""A dump may end anywhere: what it has written is kept, gone on with, and given its final names in safe steps.

    journal     the unfinished dump's lock and list of files
    resume      what an interrupted dump has left
    publish     final names, in steps that may end anywhere
    upload      the same at a URL, for files that are written here first
"""
