"""From a source to a complete LMDB file with its index, in steps that may be interrupted anywhere.

    split       dump_split, with its check: options, and the source
    begin       options and source, before anything is written
    one_file    the steps that make one file
    shards/     the same for several files, by any number of processes and machines, and their manifest
    recovery/   the unfinished dump: its journal, how it goes on, its final names
    check       what a dump would find, without the dump
    prepare     an image file to what is stored of it
    pack        files of a source to records and rows of the journal
    write       records into LMDB, in bounded transactions
    verify      every byte of a file against its checksums
    columns     the journal's rows to the columns of the index
    findings    collects what images/examine.py and prepare have found, with duplicates and counts of classes
    summary     what a dump says when it is done
    space       whether a dump fits on the disk
"""
