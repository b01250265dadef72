"""A Ray cluster of several raylets on this machine until standard input ends; prints its address as a line of JSON.

Its argument is a JSON list of node settings, the head's first. Each line of standard input adds another node like the last. The
head node runs the cluster's services, so the others may be killed.
"""

import json
import os
import sys

from ray.cluster_utils import Cluster

from limbeck.cluster.ray_internals import starting_within

PATIENCE_SECONDS = 180  # Ray's own 30 s are too short for a slow machine that does something else


def main() -> None:
    head, *others = json.loads(sys.argv[1])
    shared = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 100_000_000}
    with starting_within(PATIENCE_SECONDS):
        cluster = Cluster(initialize_head=True, head_node_args={**shared, **head, "wait": False})
        nodes = [cluster.head_node, *(cluster.add_node(wait=False, **shared, **other) for other in others)]
        cluster.wait_for_nodes(timeout=PATIENCE_SECONDS)
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    for _ in sys.stdin:
        nodes.append(cluster.add_node(**shared, **others[-1]))
    for node in reversed(nodes):  # `Cluster.shutdown` waits for processes that may have been killed
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    os._exit(0)


main()
