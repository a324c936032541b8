"""keelgate with many routes: cost of a request, time of a change, time of a cold start, memory."""

import http.client
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path

from measure import (HERE, Failed, Server, free_ports, in_turns, median, ratio, run, start_upstream, table, workspace,
                     wrk)
from peers import keelgate_binary, keelgate_with

ADMIN_KEY = "bench-admin-key-edd1c9f034335f136f8"


def many_routes(count, upstream):
    """Routes as people have them: a few hosts, a path of several segments, some of them prefixes."""
    nodes = {f"127.0.0.1:{upstream}": 1}
    tails = ["", "/*", "/detail"]
    return [{
        "id": str(number),
        "uri": f"/team-{number % 97}/service-{number}/items{tails[number % 3]}",
        "upstream": {"type": "roundrobin", "nodes": nodes},
    } for number in range(count)]


def cost_of_routes(counts, rounds, seconds):
    """CPU per request with so many routes, requests spread over all of them, in turns."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_upstream(folder))
        servers = {}
        for count in counts:
            ports = free_ports(2)
            server = Server(f"keelgate-{count}", keelgate_with(folder, ports, many_routes(count, upstream.port)), folder)
            stack.enter_context(server)
            ready = server.wait_for(ports[0], path_of(count - 1), pause=0.005)
            servers[count] = (server, ports[0], ready)

        def load(count):
            return wrk(f"http://127.0.0.1:{servers[count][1]}", seconds, script=HERE / "routes.lua", args=[count])

        cost, _ = in_turns({count: server for count, (server, _, _) in servers.items()}, rounds, load)
        rows = [(f"{count:,}", f"{median(cost[count]):.1f}", ratio(cost[count], cost[counts[0]]),
                 f"{ready * 1000:.0f}", f"{server.resident_mib():.0f}")
                for count, (server, _, ready) in servers.items()]
        table(f"Cost of routes, HTTP/1.1, 1 KiB, median of {rounds} interleaved rounds",
              ["routes", "µs/request", f"÷ {counts[0]} route", "start to first 200 (ms)", "RSS (MiB)"], rows)


def path_of(number):
    tails = ["", "/a/b", "/detail"]
    return f"/team-{number % 97}/service-{number}/items{tails[number % 3]}"


def propagation(count, changes):
    """From the Admin API's answer to the first request the data plane treats by the new route, over and over."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_upstream(folder))
        cp = stack.enter_context(ControlPlane(folder))
        cp.load(many_routes(count, upstream.port))
        dp = stack.enter_context(follower(folder, cp))
        dp.wait_for(dp.port, path_of(count - 1), timeout=120)
        admin = http.client.HTTPConnection("127.0.0.1", cp.admin)
        client = http.client.HTTPConnection("127.0.0.1", dp.port)
        times = [one_change(admin, client, upstream.port, number) for number in range(changes)]
        times.sort()
        table(f"A changed route among {count:,}: from the Admin API's answer to the data plane's first 200",
              ["changes", "median (ms)", "95 % (ms)", "slowest (ms)", "data plane RSS (MiB)"],
              [(changes, f"{median(times) * 1000:.1f}", f"{times[int(changes * 0.95)] * 1000:.1f}",
                f"{times[-1] * 1000:.1f}", f"{dp.resident_mib():.0f}")])


def one_change(admin, client, upstream, number):
    route = {"uri": f"/changed-{number}", "upstream": {"type": "roundrobin", "nodes": {f"127.0.0.1:{upstream}": 1}}}
    status, body = send(admin, "PUT", "/apisix/admin/routes/0", route)
    answered = time.monotonic()
    if status not in (200, 201):
        raise Failed(f"Admin API: {status} {body[:200]!r}")
    while time.monotonic() - answered < 10:
        client.request("GET", f"/changed-{number}")
        response = client.getresponse()
        response.read()
        if response.status == 200:
            return time.monotonic() - answered
    raise Failed(f"change {number} did not reach the data plane within 10 s")


def cold_start(count, times):
    """A data plane with no disk and no control plane: from its start to its first 200, out of an S3 server."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_upstream(folder))
        bucket = stack.enter_context(Bucket(folder))
        with ControlPlane(folder, {**bucket.settings, "on_change": True}) as cp:
            cp.load(many_routes(count, upstream.port))
            cp.wait_for_backup()
        rows = []
        for number in range(times):
            home = Path(folder) / f"cold-{number}"
            http_port, command = node(home, "data_plane", "json", {"fallback_cp": bucket.settings})
            with Server(f"cold-{number}", command, folder) as server:
                rows.append((server.wait_for(http_port, path_of(count - 1), pause=0.002), server.resident_mib()))
        seconds, memory = zip(*rows)
        table(f"Cold start from an S3 server (moto) with {count:,} routes, {times} times",
              ["median to first 200 (s)", "slowest (s)", "RSS (MiB)"],
              [(f"{median(seconds):.2f}", f"{max(seconds):.2f}", f"{median(memory):.0f}")])


class Bucket(Server):
    """An S3 server with both buckets. `./x deps` installs it."""

    def __init__(self, folder):
        [self.port] = free_ports(1)
        cache = os.environ.get("KEELGATE_CACHE", Path.home() / ".cache/keelgate")
        program = Path(cache) / "venv/bin/moto_server"
        if not program.exists():
            raise Failed(f"{program} is missing; run ./x bench")
        super().__init__("s3", [program, "-H", "127.0.0.1", "-p", self.port], folder, core="1")
        self.wait_for(self.port, "/moto-api/")
        for name in ("config", "resource"):
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            # moto tells the service by the host where nothing is signed.
            connection.request("PUT", f"/bench-{name}", headers={"Host": "s3.amazonaws.com", "Content-Length": "0"})
            if connection.getresponse().status != 200:
                raise Failed(f"the bucket bench-{name} can't be made")
        self.settings = {"aws_s3": {
            "access_key": "bench", "secret_key": "bench", "region": "us-east-1", "use_path_style": True,
            "endpoint": f"http://127.0.0.1:{self.port}", "config_bucket": "bench-config", "resource_bucket": "bench-resource",
        }}


class ControlPlane(Server):
    """A control plane with the embedded store, optionally with a backup."""

    def __init__(self, folder, backup=None):
        self.admin, self.dp = free_ports(2)
        self.home = Path(folder) / "cp"
        extra = {"keelgate": {"dp_listen": {"ip": "127.0.0.1", "port": self.dp, "tls_port": free_ports(1)[0]}}}
        if backup:
            extra["fallback_cp"] = backup
        _, command = node(self.home, "control_plane", "embedded", {}, extra, admin=self.admin)
        super().__init__("control-plane", command, folder, core="1")
        self.wait_for(self.admin, "/apisix/admin/routes?page_size=10", {"X-API-KEY": ADMIN_KEY})

    def load(self, routes):
        """Puts routes one by one, as a migration script would."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin)
        for route in routes:
            status, body = send(connection, "PUT", f"/apisix/admin/routes/{route['id']}", route)
            if status not in (200, 201):
                raise Failed(f"Admin API: {status} {body[:200]!r}")

    def wait_for_backup(self, timeout=120):
        """Until the newest revision is backed up and the backup verified."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status = json.loads(run(keelgate_binary(), "status", "--json", "-c", self.home / "conf/config.yaml"))
            [backend] = status["backup"]["backends"]
            if backend["verified"] and not status["backup"]["pending"] and backend["revision"] == status["revision"]:
                return
            time.sleep(0.5)
        raise Failed(f"no backup within {timeout} s: {backend}\n{self.log.read_text()[-2000:]}")


def follower(folder, cp):
    """A data plane of that control plane."""
    etcd = {"etcd": {"host": [f"http://127.0.0.1:{cp.dp}"], "prefix": "/apisix"}}
    port, command = node(Path(folder) / "dp", "data_plane", "etcd", etcd)
    server = Server("data-plane", command, folder)
    server.port = port
    return server


def node(home, role, provider, deployment, extra=None, admin=None):
    """A home folder for a node, its configuration as JSON (which is YAML); its proxy port, and the command to run it."""
    http_port, https, control, status, prometheus, spare = free_ports(6)

    def at(port):
        return {"ip": "127.0.0.1", "port": port}

    config = {
        "apisix": {"node_listen": [at(http_port)], "ssl": {"enable": True, "listen": [at(https)]},
                   "control": at(control), "status": at(status)},
        "nginx_config": {"worker_processes": 1, "http": {"enable_access_log": False}},
        "plugin_attr": {"prometheus": {"export_addr": at(prometheus)}},
        "deployment": {
            "role": role, f"role_{role}": {"config_provider": provider},
            "admin": {"admin_listen": at(admin or spare), "allow_admin": ["127.0.0.0/24"],
                      "admin_key": [{"name": "admin", "key": ADMIN_KEY, "role": "admin"}]},
            **deployment,
        },
        **(extra or {}),
    }
    path = home / "conf/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(config, indent=2))
    return http_port, [keelgate_binary(), "run", "-c", path]


def send(connection, method, path, body):
    connection.request(method, path, json.dumps(body), {"X-API-KEY": ADMIN_KEY, "Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()
