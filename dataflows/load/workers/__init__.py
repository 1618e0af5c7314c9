"""Worker processes: tensorpack's MultiProcessRunnerZMQ, one process each, made safe.

    parent          RoundRobinProcesses: starts workers, reads them in turns, ends them
    messages        what workers send
    shared_memory   memory that is lent and comes back, also across processes
    signals         Ctrl-C, held while it would be lost
"""
