"""The dump of one split into several files, by one process or by many on many machines: plan, dump_shard, merge.

    chain       the three steps, one after the other, or only some of them
    steps       which of them a call is for
    wanted      what a dump is asked for, and the plan that follows from it
    plan        what all tasks agree on: the list of the images, the options, the versions
    listed      ListedFiles, a DataFlow over the images of a plan
    workplace   the folder of an unfinished dump, in which attempts do not meet
    shard       dump_shard: one file of the plan, whoever else is at it
    facts       what the merge needs of a shard that is done
    merge       the manifest, made of all shards
    share       how many shards there are, and which of them are one task's
    progress    one progress bar over all shards
    on_ray/     the shards as tasks of Ray
    told        what a task says of its shards when it is done

Tasks know nothing of each other. What each writes is a function of the plan, so two attempts at one shard write the
same bytes, under names of their own, and rename them over each other's: there are no locks and no leases.
"""
