#!/usr/bin/env python3
"""Measures keelgate: beside its peers in all it speaks, with many routes, and how fast a change and a cold start are.

Everything runs on 127.0.0.1 and ends by itself. The proxy under test has one core to itself, the upstream and the
load generator share another.
"""

import argparse
import sys

import connections
import peers
import picking
import scale
from measure import Failed

PARTS = ["cpu", "instructions", "grpc", "websocket", "stream", "idle", "chash", "vars", "routes", "propagation",
         "coldstart"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="load per proxy and round (default 2)")
    parser.add_argument("--without", action="append", default=[], choices=list(peers.PEERS), help="leave a proxy out")
    parser.add_argument("--changes", type=int, default=100, help="changes to time for propagation (default 100)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    work = {
        "cpu": lambda: peers.compare_cpu(options.rounds, options.seconds, options.without),
        "instructions": lambda: peers.count_instructions(500, 2500, options.without),
        "grpc": lambda: connections.compare_grpc(options.rounds, options.seconds, options.without),
        "websocket": lambda: connections.compare_websocket(options.rounds, options.seconds, options.without),
        "stream": lambda: connections.compare_streams(options.rounds, options.seconds, options.without),
        "idle": lambda: connections.compare_idle(options.rounds, options.seconds, options.without),
        "chash": lambda: picking.compare_hash(options.rounds, options.seconds, options.without),
        "vars": lambda: picking.compare_vars(options.rounds, options.seconds, options.without),
        "routes": lambda: scale.cost_of_routes([1, 10_000, 100_000], options.rounds, options.seconds),
        "propagation": lambda: scale.propagation(10_000, options.changes),
        "coldstart": lambda: scale.cold_start(100_000, 5),
    }
    failed = False
    for part in options.parts or PARTS:
        try:
            work[part]()
        except Failed as error:
            failed = True
            print(f"\n**{part}: {error}**", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
