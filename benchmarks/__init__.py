"""The parts of benchmark.py, which is their command line.

    measure         what one run measures: all contestants, cold readers, or scaling
    inputs          the LMDBs and the part of the source that a run reads
    machine         the machine and the versions that figures are of
    contestants/    one module per library: ours, its rivals, and the contract between them and the runner
    runner, child   a process for each contestant, from both sides; they run epochs in turns
    processes       what a tree of processes costs: processor time, memory
    cold, readers   how fast bytes come off a disk
    remote, range_server    a data set at a URL against the same file here
    scaling         images/s by the number of workers
    limit           what the crops alone take
    pointers        what the chain of keys costs its thread
    report          tables and plots
    copies          a split in the format of another library, made once
    opencv, decoder, dataloader, recipes    what several contestants share
"""
