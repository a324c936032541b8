#!/usr/bin/env python3
"""Both ends of connections that talk back and forth: an echo server, and a client that counts.

  talk.py serve PORT
  talk.py load PORT CONNECTIONS BYTES SECONDS [--websocket]

The client has one message of so many bytes under way on each connection, and sends the next when all of it is back.
With --websocket a message is the payload of one frame; the echo is the same frame, masked as it came, which no proxy
looks at. To a GET that asks for no upgrade the server says 200, so that it can be waited for like any other.
"""

import base64
import hashlib
import re
import select
import socket
import sys
import time

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
AT_ONCE = 65536


def serve(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_sockets, fresh = {}, set()
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_sockets[peer.fileno()] = peer
                fresh.add(peer.fileno())
                poll.register(peer, select.EPOLLIN)
                continue
            peer = open_sockets[number]
            try:
                data = peer.recv(AT_ONCE)
                if data and number in fresh:
                    fresh.discard(number)
                    data = answer(data) if data.startswith(b"GET ") else data
                # One message at a time is under way, and the kernel has room for it.
                peer.sendall(data)
            except OSError:
                data = b""
            if not data:
                fresh.discard(number)
                del open_sockets[number]
                peer.close()


def answer(head):
    key = re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", head)
    if not key:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    accept = base64.b64encode(hashlib.sha1(key[1] + GUID.encode()).digest()).decode()
    return (f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n").encode()


def load(port, connections, size, seconds, websocket):
    """Prints how many messages came back, and in how many seconds."""
    message = frame(size) if websocket else b"m" * size
    poll = select.epoll()
    peers, missing = {}, {}
    for _ in range(connections):
        peer = socket.create_connection(("127.0.0.1", port), timeout=10)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if websocket:
            upgrade(peer)
        peers[peer.fileno()], missing[peer.fileno()] = peer, len(message)
        poll.register(peer, select.EPOLLIN)
    start, done = time.monotonic(), 0
    for peer in peers.values():
        peer.sendall(message)
    while time.monotonic() - start < seconds:
        ready = poll.poll(10)
        if not ready:
            sys.exit("no message came back within 10 s")
        for number, _ in ready:
            got = len(peers[number].recv(AT_ONCE))
            if not got:
                sys.exit(f"a connection was closed after {done} messages")
            missing[number] -= got
            if not missing[number]:
                done += 1
                missing[number] = len(message)
                peers[number].sendall(message)
    print(f"{done} messages in {time.monotonic() - start:.3f} s")


def frame(size):
    """A binary frame of a client (RFC 6455, 5.2), its mask zeros, which leave the payload as it is."""
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + b"m" * size


def upgrade(peer):
    peer.sendall(f"GET /websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = peer.recv(AT_ONCE)
        if not more:
            break
        head += more
    if not head.startswith(b"HTTP/1.1 101 "):
        sys.exit(f"no WebSocket: {head[:300]!r}")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        load(*map(int, sys.argv[2:6]), websocket="--websocket" in sys.argv)
