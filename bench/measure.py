"""Starting servers on one core, putting load on them from the other, and reading what it cost.

The one rule: what is compared is measured in turns, seconds apart, and a ratio is taken within a turn, so that a
machine that grows slower or faster meanwhile does not decide.
"""

import http.client
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROXY_CORE, OTHER_CORE = "0", "1"


class Failed(Exception):
    """Something did not work; the text says what, for a person."""


def free_ports(count):
    """Ports nobody listens on. Held together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """A process pinned to a core; ends with its `with`."""

    def __init__(self, name, command, folder, core=PROXY_CORE, env=None):
        self.name, self.log = name, Path(folder) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", core, *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env={**os.environ, **(env or {})},
            )
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self, sig=signal.SIGTERM, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu_seconds(self):
        """Time on a core, all threads: exact where the kernel keeps schedstat, else in ticks of 10 ms."""
        total = 0
        try:
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
            return total / 1e9
        except (FileNotFoundError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def wait_for(self, port, path="/", headers=None, status=200, timeout=60, pause=0.02):
        """Seconds until it answers with a status; a server that ends instead is a failure."""
        start, seen = time.monotonic(), "nothing"
        while time.monotonic() - start < timeout:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
            try:
                seen = get(port, path, headers or {})[0]
                if seen == status:
                    return time.monotonic() - start
            except (OSError, http.client.HTTPException) as error:
                seen = error
            time.sleep(pause)
        raise Failed(f"{self.name}: {path} answered {seen}, not {status}:\n{self.log.read_text()[-2000:]}")


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def fill(template, folder, target, **values):
    """Writes a template of peers/ with its @NAMES@ replaced."""
    text = (HERE / "peers" / template).read_text()
    for name, value in {"DIR": folder, **values}.items():
        text = text.replace(f"@{name}@", str(value))
    left = re.search(r"@[A-Z_]+@", text)
    if left:
        raise Failed(f"{template}: {left[0]} has no value")
    target = Path(folder) / target
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def workspace():
    """A folder on the RAM disk with a certificate and the upstream's files; ends with its `with`."""
    folder = tempfile.TemporaryDirectory(prefix="keelgate-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    path = Path(folder.name)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", path / "key.pem", "-out", path / "cert.pem")
    (path / "both.pem").write_bytes((path / "cert.pem").read_bytes() + (path / "key.pem").read_bytes())
    (path / "www").mkdir()
    (path / "www/1k").write_bytes(b"k" * 1024)
    (path / "www/100k").write_bytes(b"k" * 102400)
    (path / "www/1m").write_bytes(b"k" * 1048576)
    # A message of gRPC: not compressed, its length, itself. The same is sent and answered.
    (path / "www/unary.grpc").write_bytes(b"\0" + (64).to_bytes(4, "big") + b"k" * 64)
    return folder


def start_upstream(folder, address="127.0.0.1"):
    [port] = free_ports(1)
    conf = fill("upstream.conf", folder, "upstream.conf", ADDRESS=address, UPSTREAM=port)
    server = Server("upstream", [program("nginx"), "-p", folder, "-c", conf], folder, core=OTHER_CORE)
    server.wait_for(port, "/1k")
    server.port = port
    return server


def start_grpc(folder):
    """What answers any call of /unary.grpc with the message that is asked with, on `port`; not waited for."""
    [port] = free_ports(1)
    types = Path(folder) / "mime.types"
    types.write_text("application/grpc grpc\n")
    server = Server("grpc", [program("nghttpd"), "--no-tls", "--address=127.0.0.1", f"--htdocs={folder}/www",
                             f"--mime-types-file={types}", "--no-content-length", "--trailer=grpc-status: 0", port],
                    folder, core=OTHER_CORE)
    server.port = port
    return server


def start_echo(folder):
    """What sends back what it gets, as a WebSocket and over bare TCP, on `port`."""
    [port] = free_ports(1)
    server = Server("echo", [sys.executable, HERE / "talk.py", "serve", port], folder, core=OTHER_CORE)
    server.wait_for(port)
    server.port = port
    return server


def in_turns(servers, rounds, load):
    """What each server pays in CPU for what `load(name)` does, in µs a piece, and how many it did a second.

    A load says how many and their rate. Lists by server, one value a round; the first turn warms up and does not count.
    """
    cost, rate = {name: [] for name in servers}, {name: [] for name in servers}
    order = list(servers)
    for turn in range(rounds + 1):
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            before = servers[name].cpu_seconds()
            done, speed = load(name)
            if turn > 0:
                cost[name].append((servers[name].cpu_seconds() - before) / done * 1e6)
                rate[name].append(speed)
    return cost, rate


def ratio(cost, to):
    """The median of the ratios within the rounds, as text."""
    return f"{median([mine / theirs for mine, theirs in zip(cost, to)]):.2f}"


def spread(values):
    return f"{min(values):.1f}–{max(values):.1f}"


def wrk(url, seconds, connections=32, script=None, args=(), headers=()):
    """Requests done and their rate, over HTTP/1.1, kept alive unless a header says otherwise."""
    options = [word for header in headers for word in ("-H", header)] + (["-s", script] if script else [])
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *options, url]
    out = run("taskset", "-c", OTHER_CORE, *command, *(["--", *args] if args else []))
    done = int(re.search(r"(\d+) requests in", out)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    if bad or not done:
        raise Failed(f"{url}: {bad[0] if bad else 'no request was answered'}")
    return done, float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def h2load(url, requests=None, seconds=None, connections=8, streams=4, h1=False, options=(), cwd=None):
    """Requests done and their rate, over HTTP/2 (or kept-alive HTTP/1.1): a count, or as many as there is time for."""
    how_long = ["-n", requests] if requests else ["-D", seconds]
    how = [*options, *(["--h1"] if h1 else ["-m", streams])]
    out = run("taskset", "-c", OTHER_CORE, "h2load", "-t1", "-c", connections, *how, *how_long, url, cwd=cwd)
    match = re.search(r"requests: .* (\d+) succeeded, (\d+) failed", out)
    codes = re.search(r"status codes: (\d+) 2xx", out)
    done = int(codes[1]) if codes else 0
    if not done or int(match[2]) or done < int(match[1]):
        raise Failed(f"{url}: {match[0] if match else out[-500:]}; {done} answers 2xx")
    return done, float(re.search(r"([\d.]+) req/s", out)[1])


def talk(port, connections, size, seconds, websocket=False):
    """Messages of so many bytes that went to an echo and came back, and their rate; see talk.py."""
    out = run("taskset", "-c", OTHER_CORE, sys.executable, HERE / "talk.py", "load", port, connections, size, seconds,
              *(["--websocket"] if websocket else []))
    done, took = re.search(r"(\d+) messages in ([\d.]+) s", out).groups()
    return int(done), int(done) / float(took)


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=600, **options)
    if done.returncode:
        raise Failed(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout + done.stderr


def program(name):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if not path:
        raise Failed(f"{name} is not installed; run ./x bench")
    return path


def median(values):
    return statistics.median(values)


def table(title, head, rows):
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
