"""What it costs to choose: a node among a thousand by a hash, a route among some that differ in `vars` alone."""

from contextlib import ExitStack

from connections import start_all
from measure import HERE, in_turns, median, ratio, spread, start_upstream, table, workspace, wrk
from peers import beside, chosen, haproxy, keelgate_with, nginx, to

KEYS = [f"k{number}" for number in range(100)]
LAST = KEYS[-1]


def named(variable):
    """nginx's table from a variable's value to the upstream."""
    return f"map {variable} $picked {{ default nothing; {' '.join(f'{key} backend;' for key in KEYS)} }}"


# What tells routes apart: our conditions, one a route; nginx's table; HAProxy's rules.
CASES = {
    "a plain route": ([None], "", []),
    "100 by header": ([["http_x_key", "==", key] for key in KEYS], named("$http_x_key"),
                      [f"req.hdr(x-key) -m str {key}" for key in KEYS]),
    "100 by argument": ([["arg_key", "==", key] for key in KEYS], named("$arg_key"),
                        [f"urlp(key) -m str {key}" for key in KEYS]),
    "one by pattern": ([["http_x_key", "~~", "^k[0-9]+$"]],
                       'map $http_x_key $picked { default nothing; "~^k[0-9]+$" backend; }',
                       ["req.hdr(x-key) -m reg ^k[0-9]+$"]),
    "one by address": ([["remote_addr", "ipmatch", ["10.0.0.0/8", "127.0.0.0/8"]]],
                       "geo $picked { default nothing; 10.0.0.0/8 backend; 127.0.0.0/8 backend; }",
                       ["src 10.0.0.0/8 127.0.0.0/8"]),
}


def compare_hash(rounds, seconds, without, count=1000):
    """CPU per request to an upstream of many nodes: in turn, and by a consistent hash of a header."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        # All nodes are this one server: every address of 127.0.0.0/8 is ours.
        upstream = stack.enter_context(start_upstream(folder, address="0.0.0.0"))
        nodes = [f"127.0.{1 + number // 250}.{1 + number % 250}:{upstream.port}" for number in range(count)]

        def ours(ports, **choice):
            # As many connections as nginx keeps.
            conf = {"nodes": dict.fromkeys(nodes, 1), "keepalive_pool": {"size": 2 * count}, **choice}
            return keelgate_with(folder, ports, [{"id": "1", "uri": "/*", "upstream": conf}])

        commands = {
            ("keelgate", "roundrobin"): lambda ports: ours(ports, type="roundrobin"),
            ("keelgate", "chash"): lambda ports: ours(ports, type="chash", hash_on="header", key="X-User"),
            ("nginx", "roundrobin"): lambda ports: nginx(folder, ports, None, nodes),
            ("nginx", "chash"): lambda ports: nginx(folder, ports, None, nodes, "hash $http_x_user consistent;"),
            ("haproxy", "roundrobin"): lambda ports: haproxy(folder, ports, None, nodes, "balance roundrobin"),
            ("haproxy", "chash"): lambda ports: haproxy(folder, ports, None, nodes,
                                                        "balance hdr(x-user)\n  hash-type consistent"),
        }

        def load(port):
            return wrk(f"http://127.0.0.1:{port}/1k", seconds, script=HERE / "users.lua")

        rows = beside_itself(stack, folder, commands, without, rounds, load, path="/1k")
        table(f"An upstream of {count:,} nodes: CPU per request, HTTP/1.1, 1 KiB, one core, "
              f"median of {rounds} interleaved rounds of {seconds} s",
              ["proxy", "node by", "µs/request", "range", "÷ roundrobin", "÷ nginx", "RSS (MiB)"], rows)


def compare_vars(rounds, seconds, without):
    """CPU per request where routes share a path and `vars` tell them apart."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_upstream(folder))

        commands = {}
        for case, (conditions, maps, rules) in CASES.items():
            commands["keelgate", case] = keelgate_by(folder, upstream.port, conditions)
            commands["nginx", case] = nginx_by(folder, upstream.port, maps)
            commands["haproxy", case] = haproxy_by(folder, upstream.port, rules)

        def load(port):
            return wrk(f"http://127.0.0.1:{port}/1k?key={LAST}", seconds, headers=[f"X-Key: {LAST}"])

        rows = beside_itself(stack, folder, commands, without, rounds, load,
                             path=f"/1k?key={LAST}", headers={"X-Key": LAST})
        table(f"Routes that differ in `vars`, the last one matches: CPU per request, HTTP/1.1, 1 KiB, one core, "
              f"median of {rounds} interleaved rounds of {seconds} s",
              ["proxy", "routes", "µs/request", "range", "÷ plain", "÷ nginx", "RSS (MiB)"], rows)


def beside_itself(stack, folder, commands, without, rounds, load, **request):
    """Commands by (proxy, case) in turns; rows of a table: each beside its proxy's first case, and beside nginx."""
    commands = {key: command for key, command in commands.items() if key[0] in chosen(without)}
    servers, ports = start_all(stack, commands, folder, lambda server, ports: server.wait_for(ports[0], **request))
    cost, _ = in_turns(servers, rounds, lambda key: load(ports[key][0]))
    plain = {}
    for proxy, case in servers:
        mine = cost[proxy, case]
        yield (proxy, case, f"{median(mine):.1f}", spread(mine), ratio(mine, plain.setdefault(proxy, mine)),
               beside(cost, (proxy, case), ("nginx", case)), f"{servers[proxy, case].resident_mib():.0f}")


def keelgate_by(folder, upstream, conditions):
    # The one that matches is asked last: all paths are the same, and its priority is the lowest.
    routes = [{"id": str(number), "uri": "/*", "priority": len(conditions) - number, "upstream": to(upstream),
               **({"vars": [condition]} if condition else {})} for number, condition in enumerate(conditions)]
    return lambda ports: keelgate_with(folder, ports, routes)


def nginx_by(folder, upstream, maps):
    return lambda ports: nginx(folder, ports, upstream, maps=maps, target="$picked" if maps else "backend")


def haproxy_by(folder, upstream, rules):
    pick = "\n  ".join(f"use_backend back if {{ {rule} }}" for rule in rules) or "default_backend back"
    return lambda ports: haproxy(folder, ports, upstream, pick=pick)
