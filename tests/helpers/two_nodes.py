"""A Ray cluster of two raylets on this machine until standard input ends: says where it is as a line of JSON.

Its arguments are the processors of each node. Each line of standard input adds another node like the second. Only the first holds
what a cluster cannot be without, so the second may be killed.
"""

import json
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    first, second = (float(cpus) for cpus in sys.argv[1:])
    shared = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**shared, "num_cpus": first})
    node = cluster.add_node(**shared, num_cpus=second)
    raylet = node.all_processes["raylet"][0].process.pid
    print(json.dumps({"address": cluster.address, "raylet": raylet}), flush=True)
    for _ in sys.stdin:
        cluster.add_node(**shared, num_cpus=second)
    cluster.shutdown()


main()
