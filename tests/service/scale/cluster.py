"""A Ray cluster of several raylets on this machine, in a process of its own.

Ray's threads, signal handlers and open files stay out of the tests' process that way. The cluster
ends when its stdin does, so also when whoever started it dies.

    python cluster.py CPUS_OF_HEAD CPUS_OF_A_NODE...
"""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster

_STORE = 80 << 20  # bytes of shared memory for each raylet; Ray's least is 75 MB


def main() -> None:
    head, *nodes = (float(argument) for argument in sys.argv[1:])
    common = {"object_store_memory": _STORE, "include_dashboard": False}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**common, "num_cpus": head, "dashboard_agent_listen_port": 0},
    )
    try:
        for cpus in nodes:
            cluster.add_node(num_cpus=cpus, **common)
        print(json.dumps({"address": cluster.address}), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
