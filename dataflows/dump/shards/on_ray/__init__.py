"""The shards of a plan as tasks of Ray.

    driver    hands out the tasks, shows how far they are, and collects what they say
    worker    one task: a shard, in a process of Ray's
    running   Ray itself: a cluster, or one of our own that ends with the dump
"""
