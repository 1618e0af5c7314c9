"""Worker processes: tensorpack's MultiProcessRunnerZMQ, one process each, made safe.

    parent          RoundRobinProcesses: starts workers, reads them in turns, ends them
    child           what runs in a worker: its part of the chain, its signals, its end
    messages        what workers send
    shared_memory   memory that is lent and comes back, also across processes
    signals         Ctrl-C, which the parent holds while it would be lost
"""
