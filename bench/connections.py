"""Other protocols and many connections beside nginx and HAProxy: gRPC, WebSocket, TCP, connections that only wait."""

import http.client
import time
from contextlib import ExitStack
from pathlib import Path

from measure import (Failed, Server, free_ports, h2load, in_turns, median, ratio, run, spread, start_echo, start_grpc,
                     start_upstream, table, talk, workspace, wrk)
from peers import beside, beside_nginx, chosen, haproxy_of, keelgate_with, nginx_of, to

GRPC = ["-d", "www/unary.grpc", "-H", "content-type: application/grpc", "-H", "te: trailers"]


def start_all(stack, commands, folder, ready):
    """Servers and their two ports by the commands' names; waits until `ready(server, ports)`."""
    servers, ports = {}, {}
    for name, command in commands.items():
        own = free_ports(2)
        label = name if isinstance(name, str) else "-".join(map(str, name))
        servers[name] = stack.enter_context(Server(label.replace(" ", "-"), command(own), folder))
        ports[name] = own
        ready(servers[name], own)
    return servers, ports


def compare_grpc(rounds, seconds, without):
    """CPU per unary call, HTTP/2 without TLS on both sides, a message of 64 bytes there and back."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_grpc(folder))
        route = {"id": "1", "uri": "/*", "upstream": to(upstream.port, scheme="grpc")}
        commands = {
            "keelgate": lambda ports: keelgate_with(folder, ports, [route]),
            "nginx": lambda ports: nginx_of("nginx-grpc.conf", folder, HTTP=ports[0], UPSTREAM=upstream.port),
            "haproxy": lambda ports: haproxy_of("haproxy-grpc.cfg", folder, HTTP=ports[0], UPSTREAM=upstream.port),
        }

        servers, ports = start_all(stack, chosen(without, commands), folder,
                                   lambda server, ports: wait_for_call(server, ports[0], folder))

        def load(name):
            return h2load(url(ports[name][0]), seconds=seconds, options=GRPC, cwd=folder)

        rows = beside_nginx("unary", *in_turns(servers, rounds, load))
        table(f"gRPC: CPU per call, one core, median of {rounds} interleaved rounds of {seconds} s",
              ["", "proxy", "µs/call", "range", "÷ nginx", "calls/s"], rows)


def url(port):
    return f"http://127.0.0.1:{port}/unary.grpc"


def wait_for_call(server, port, folder, timeout=60):
    """Until a call is answered with a message and, behind it, its status."""
    deadline, seen = time.monotonic() + timeout, ""
    while time.monotonic() < deadline:
        try:
            seen = run("nghttp", "-v", "-t", "10", *GRPC, url(port), cwd=folder)
        except Failed as error:
            seen = str(error)
        if "grpc-status: 0" in seen:
            return
        time.sleep(0.1)
    raise Failed(f"{server.name} answers no call:\n{seen[-1000:]}\n{server.log.read_text()[-1000:]}")


def compare_websocket(rounds, seconds, without, connections=32):
    """CPU per frame, one frame under way on each connection, to an echo and back."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        echo = stack.enter_context(start_echo(folder))
        route = {"id": "1", "uri": "/*", "enable_websocket": True, "upstream": to(echo.port)}
        commands = {name: command_of(start, folder, echo.port) for name, start in chosen(without).items()}
        if "keelgate" in commands:
            commands["keelgate"] = lambda ports: keelgate_with(folder, ports, [route])
        servers, ports = start_all(stack, commands, folder, lambda server, ports: server.wait_for(ports[0]))
        rows = []
        for name, size in [("125 B", 125), ("16 KiB", 16384)]:
            def load(proxy):
                done, rate = talk(ports[proxy][0], connections, size, seconds, websocket=True)
                return 2 * done, 2 * rate  # there and back are two frames

            rows += beside_nginx(name, *in_turns(servers, rounds, load))
        table(f"WebSocket: CPU per frame over {connections} connections, one core, "
              f"median of {rounds} interleaved rounds of {seconds} s",
              ["payload", "proxy", "µs/frame", "range", "÷ nginx", "frames/s"], rows)


def command_of(start, folder, upstream):
    return lambda ports: start(folder, ports, upstream)


def compare_streams(rounds, seconds, without):
    """TCP without HTTP: CPU per connection, per MiB one way, and per small message there and back."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        web, echo = stack.enter_context(start_upstream(folder)), stack.enter_context(start_echo(folder))

        def values(ports):
            return {"WEB": ports[0], "ECHO": ports[1], "WEB_UPSTREAM": web.port, "ECHO_UPSTREAM": echo.port}

        commands = {
            "keelgate": lambda ports: keelgate_with(folder, free_ports(2), [],
                                                    {ports[0]: web.port, ports[1]: echo.port}),
            "nginx": lambda ports: nginx_of("nginx-stream.conf", folder, MODULE=stream_module(), **values(ports)),
            "haproxy": lambda ports: haproxy_of("haproxy-stream.cfg", folder, **values(ports)),
        }
        servers, ports = start_all(stack, chosen(without, commands), folder,
                                   lambda server, ports: server.wait_for(ports[0], "/1k"))

        def connect(name):
            return wrk(f"http://127.0.0.1:{ports[name][0]}/1k", seconds, headers=["Connection: close"])

        def download(name):
            return wrk(f"http://127.0.0.1:{ports[name][0]}/1m", seconds)

        def message(name):
            return talk(ports[name][1], 32, 128, seconds)

        rows = []
        for name, load in [("a connection, 1 KiB", connect), ("a MiB", download), ("128 B there and back", message)]:
            rows += beside_nginx(name, *in_turns(servers, rounds, load))
        table(f"TCP: CPU, one core, median of {rounds} interleaved rounds of {seconds} s",
              ["", "proxy", "µs each", "range", "÷ nginx", "a second"], rows)


def stream_module():
    for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
        path = Path(folder) / "ngx_stream_module.so"
        if path.exists():
            return path
    raise Failed("nginx's stream module is not installed; run ./x bench")


def compare_idle(rounds, seconds, without, idle=1000, busy=50):
    """CPU per request of the busy connections and memory, with and without connections that wait."""
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        upstream = stack.enter_context(start_upstream(folder))
        commands = {(name, crowd): command_of(start, folder, upstream.port)
                    for name, start in chosen(without).items() for crowd in (0, idle)}
        servers, ports = start_all(stack, commands, folder,
                                   lambda server, ports: server.wait_for(ports[0], "/1k"))

        def load(key):
            return wrk(f"http://127.0.0.1:{ports[key][0]}/1k", seconds, connections=busy)

        for key in servers:
            load(key)
        before = {key: server.resident_mib() for key, server in servers.items()}
        crowds = {key: stack.enter_context(Crowd(key[0], ports[key][0], key[1])) for key in servers}
        cost, _ = in_turns(servers, rounds, load)
        for crowd in crowds.values():
            crowd.must_be_there()
        rows = []
        for name, crowd in servers:
            key, alone = (name, crowd), (name, 0)
            grown = (servers[key].resident_mib() - before[key]) * 1024
            rows.append((name, f"{crowd:,}", f"{median(cost[key]):.1f}", spread(cost[key]), ratio(cost[key], cost[alone]),
                         beside(cost, key, ("nginx", crowd)), f"{servers[key].resident_mib():.1f}",
                         f"{grown / crowd:.1f}" if crowd else "–"))
        table(f"{busy} busy connections beside idle ones: CPU per request, HTTP/1.1, 1 KiB, one core, "
              f"median of {rounds} interleaved rounds of {seconds} s",
              ["proxy", "idle", "µs/request", "range", "÷ none idle", "÷ nginx", "RSS (MiB)", "RSS an idle one (KiB)"],
              rows)


class Crowd:
    """Connections that had one request answered, and wait for the next; they end with its `with`."""

    def __init__(self, name, port, count):
        self.name, self.sockets = name, []
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/1k")
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise Failed(f"{name}: {response.status} for a connection that shall wait")
            connection.sock.setblocking(False)
            self.sockets.append(connection.sock)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.sockets:
            each.close()

    def must_be_there(self):
        for each in self.sockets:
            try:
                each.recv(1)
            except BlockingIOError:
                continue
            raise Failed(f"{self.name} closed a connection that was to wait")
