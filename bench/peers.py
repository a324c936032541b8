"""Side by side with nginx and HAProxy: CPU time and instructions per proxied request."""

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path

from measure import (Failed, Server, fill, free_ports, h2load, in_turns, median, program, ratio, spread, start_upstream,
                     table, workspace, wrk)

CASES = [
    # name, scheme, path, load
    ("HTTP/1.1, 1 KiB", "http", "/1k", "h1"),
    ("HTTP/1.1, 100 KiB", "http", "/100k", "h1"),
    ("TLS, HTTP/1.1, 1 KiB", "https", "/1k", "h1"),
    ("TLS, HTTP/1.1, 100 KiB", "https", "/100k", "h1"),
    ("TLS, HTTP/2, 1 KiB", "https", "/1k", "h2"),
    ("TLS, HTTP/2, 100 KiB", "https", "/100k", "h2"),
]


def nginx(folder, ports, upstream, nodes=(), balance="", maps="", target="backend"):
    """The command of a plain reverse proxy, to the upstream's port or to nodes.

    A directive of `upstream` says how a node is chosen, a `map` which target is.
    """
    nodes = nodes or [f"127.0.0.1:{upstream}"]
    return nginx_of("nginx.conf", folder, HTTP=ports[0], HTTPS=ports[1], BALANCE=balance, MAP=maps, PASS=target,
                    POOL=max(320, 2 * len(nodes)), NODES=" ".join(f"server {node};" for node in nodes))


def nginx_of(template, folder, **values):
    conf = fill(template, folder, f"{values.get('HTTP', '')}{template}", **values)
    return [program("nginx"), "-p", folder, "-c", conf]


def haproxy(folder, ports, upstream, nodes=(), balance="", pick="default_backend back"):
    nodes = nodes or [f"127.0.0.1:{upstream}"]
    lines = (f"server n{number} {node} maxconn 320" for number, node in enumerate(nodes))
    return haproxy_of("haproxy.cfg", folder, HTTP=ports[0], HTTPS=ports[1], BALANCE=balance, PICK=pick,
                      NODES="\n  ".join(lines))


def haproxy_of(template, folder, **values):
    conf = fill(template, folder, f"{values.get('HTTP', '')}{template}", **values)
    return [program("haproxy"), "-db", "-f", conf]


def keelgate(folder, ports, upstream):
    return keelgate_with(folder, ports, [{"id": "1", "uri": "/*", "upstream": to(upstream)}])


def to(port, **more):
    """An upstream of one node."""
    return {"type": "roundrobin", "nodes": {f"127.0.0.1:{port}": 1}, **more}


def keelgate_with(folder, ports, routes, streams=None):
    """A home folder for keelgate with these routes in a file, and the command that runs it.

    `streams` are ports to listen on for TCP and where each leads.
    """
    streams = streams or {}
    home = Path(folder) / f"keelgate-{ports[0]}"
    control, status, prometheus = free_ports(3)
    conf = fill("keelgate.yaml", home, "conf/config.yaml", HTTP=ports[0], HTTPS=ports[1], CONTROL=control,
                STATUS=status, PROMETHEUS=prometheus, PROVIDER="json", MODE="http&stream" if streams else "http",
                STREAMS=json.dumps([f"127.0.0.1:{port}" for port in streams]))
    ssl = {"id": "1", "snis": ["localhost"], "cert": (Path(folder) / "cert.pem").read_text(),
           "key": (Path(folder) / "key.pem").read_text()}
    stream_routes = [{"id": str(port), "server_port": port, "upstream": to(target)} for port, target in streams.items()]
    # Written aside and renamed, as anyone should who writes a file that is watched.
    draft = home / "conf/apisix.json.new"
    draft.write_text(json.dumps({"routes": routes, "ssls": [ssl], "stream_routes": stream_routes}))
    draft.rename(home / "conf/apisix.json")
    return [keelgate_binary(), "run", "-c", conf]


def keelgate_binary():
    binary = os.environ.get("KEELGATE_BIN")
    if not binary:
        raise Failed("KEELGATE_BIN names no binary")
    return Path(binary).resolve()


PEERS = {"keelgate": keelgate, "nginx": nginx, "haproxy": haproxy}


def chosen(without, of=None):
    return {name: start for name, start in (of or PEERS).items() if name not in without}


def compare_cpu(rounds, seconds, without):
    """CPU per request of every proxy, in turns on the same core, for every case."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_upstream(folder))
        proxies = {}
        for name, command in chosen(without).items():
            ports = free_ports(2)
            server = Server(name, command(folder, ports, upstream.port), folder)
            proxies[name] = (stack.enter_context(server), ports)
            server.wait_for(ports[0], "/1k")
        rows = []
        for case in CASES:
            rows += compare_case(case, proxies, rounds, seconds)
        table(f"CPU per request, one core, median of {rounds} interleaved rounds of {seconds} s",
              ["", "proxy", "µs/request", "range", "÷ nginx", "requests/s"], rows)


def compare_case(case, proxies, rounds, seconds):
    name, scheme, path, kind = case

    def load(proxy):
        # By name, so that the certificate is picked as in real life.
        url = f"{scheme}://localhost:{proxies[proxy][1][scheme == 'https']}{path}"
        return wrk(url, seconds) if kind == "h1" else h2load(url, seconds=seconds)

    servers = {proxy: server for proxy, (server, _) in proxies.items()}
    return beside_nginx(name, *in_turns(servers, rounds, load))


def beside(cost, mine, theirs):
    """The ratio of two servers' costs, or a dash where the other one is left out."""
    return ratio(cost[mine], cost[theirs]) if theirs in cost else "–"


def beside_nginx(name, cost, rate):
    """Rows of a table: what a thing costs each proxy, and how that is to nginx."""
    for proxy in cost:
        yield (name, proxy, f"{median(cost[proxy]):.1f}", spread(cost[proxy]), beside(cost, proxy, "nginx"),
               f"{median(rate[proxy]):.0f}")


def count_instructions(few, many, without):
    """User-space instructions per request under callgrind: a long run less a short one, so that start-up cancels out."""
    rows = []
    with workspace() as folder, start_upstream(folder) as upstream:
        for name, command in chosen(without).items():
            counts = [instructions(name, command, folder, upstream.port, requests) for requests in (few, many)]
            rows.append((name, f"{(counts[1] - counts[0]) / (many - few):.0f}"))
    table(f"Instructions per request (callgrind, HTTP/1.1, 1 KiB, {many} requests less {few})",
          ["proxy", "instructions/request"], rows)


def instructions(name, command, folder, upstream, requests):
    ports = free_ports(2)
    out = Path(folder) / f"callgrind.{name}.{requests}"
    valgrind = [program("valgrind"), "--tool=callgrind", f"--callgrind-out-file={out}"]
    with Server(name, [*valgrind, *command(folder, ports, upstream)], folder) as server:
        server.wait_for(ports[0], "/1k", timeout=180, pause=0.5)
        h2load(f"http://127.0.0.1:{ports[0]}/1k", requests=requests, connections=8, h1=True)
        server.stop(timeout=120)
    dumps = [path.read_text() for path in Path(folder).glob(f"{out.name}*")]
    totals = [int(match[1]) for text in dumps for match in re.finditer(r"^(?:totals|summary): (\d+)", text, re.M)]
    if not totals:
        raise Failed(f"callgrind counted nothing for {name}:\n{server.log.read_text()[-1000:]}")
    return max(totals)
