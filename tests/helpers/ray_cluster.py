"""A Ray of several machines, which are addresses of this one: run as a program, for it leaves much in its process.

    python ray_cluster.py    prints the address; then each line on stdin kills a machine; ends with stdin

Its sockets are in TMPDIR, whose path is to be short.
"""
import sys

_QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 1000,
          "health_check_failure_threshold": 3}  # else a dead machine is noticed after 15 s
_NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def main():
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "node_ip_address": "127.0.0.2", "_system_config": _QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=_NODE | head)
    nodes = [cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{n}", **_NODE) for n in (3, 4)]
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
