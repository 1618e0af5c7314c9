"""Files in object storage and on web servers: read by ranges, ahead of decoding, or kept in a folder of this machine.

    urls         which paths are URLs, and what may be in one
    options      what a user says of them: storage_options, cache_dir, cache_bytes
    backend      the fsspec file system of a URL, made anew in each process
    connection   requests with time-outs, repetitions and bounds
    failures     what their errors mean and say
    request      what is asked for ahead, joined to ranges, and several of these to one request
    pool         the stretches that were asked for and wait in memory
    remote_file  one file as the readers of records see it
    opening      header and index of a file, and its records
    cache/       whole files in a folder of this machine
    once         a file that is read from start to end, as verify does it
    upload       writes files there, and compares them with what was written
"""
