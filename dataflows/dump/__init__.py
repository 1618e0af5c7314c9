"""From a source to a complete LMDB file with its index, in steps that may be interrupted anywhere.

    split       dump_split, with its check: the steps in their order
    check       what a dump would find, without the dump
    prepare     an image file to what is stored of it
    pack        files of a source to records and rows of the journal
    write       records into LMDB, in bounded transactions
    journal     the unfinished dump's lock and list of files
    resume      what an interrupted dump has left
    publish     final names, in steps that may end anywhere
    verify      every byte of a file against its checksums
    columns     the journal's rows to the columns of the index
    findings    collects what images/examine.py and prepare have found, with duplicates and counts of classes
    summary     what a dump says when it is done
    space       whether a dump fits on the disk
"""
