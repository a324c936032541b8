"""A Kafka for tests: librdkafka's own broker, and a door to it with TLS and SASL/PLAIN.

Prints the port of each as a line. The topic `messages` has one partition and COUNT messages, `message N` from 1 on.
The door asks for NAME and PASSWORD before anything else, and tells clients that it is the broker.
"""

import asyncio
import re
import ssl
import struct
import sys

from confluent_kafka import Producer

COUNT = 3
SASL_HANDSHAKE, SASL_AUTHENTICATE, API_VERSIONS = 17, 36, 18


def broker():
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})
    for number in range(1, COUNT + 1):
        producer.produce("messages", value=f"message {number}", key="key", partition=0, timestamp=1000 * number)
    producer.flush(30)
    (node,) = producer.list_topics(timeout=30).brokers.values()
    return producer, node.port


async def frame(reader):
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)


def framed(payload):
    return struct.pack(">i", len(payload)) + payload


def authenticated(payload, known):
    """The answer to SaslAuthenticate of version 0, whose body is the credentials."""
    right = payload.endswith(b"\0" + b"\0".join(known))
    if right:
        return struct.pack(">hhi", 0, -1, 0), True
    error = b"Authentication failed"
    return struct.pack(">hh", 58, len(error)) + error + struct.pack(">i", 0), False


def told(payload, key, inner, outer):
    """A broker's answer, as if the door were the broker."""
    if key == API_VERSIONS:
        (count,) = struct.unpack(">i", payload[6:10])
        more = struct.pack(">hhhhhh", SASL_HANDSHAKE, 0, 1, SASL_AUTHENTICATE, 0, 0)
        return payload[:6] + struct.pack(">i", count + 2) + more + payload[10:]
    return re.sub(b"127\\.0\\.0\\.1" + re.escape(struct.pack(">i", inner)), b"127.0.0.1" + struct.pack(">i", outer), payload)


async def serve(reader, writer, inner, outer, known):
    to = await asyncio.open_connection("127.0.0.1", inner)
    known_to_us = False
    try:
        while True:
            request = await frame(reader)
            key, _, correlation = struct.unpack(">hhi", request[:8])
            answer = struct.pack(">i", correlation)
            if key == SASL_HANDSHAKE:
                answer += struct.pack(">hih", 0, 1, 5) + b"PLAIN"
            elif key == SASL_AUTHENTICATE:
                words, known_to_us = authenticated(request, known)
                answer += words
            elif key == API_VERSIONS or known_to_us:
                to[1].write(framed(request))
                answer = told(await frame(to[0]), key, inner, outer)
            else:
                return
            writer.write(framed(answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
        to[1].close()


async def main(cert, key, name, password):
    producer, inner = broker()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    known = (name.encode(), password.encode())

    async def accepted(reader, writer):
        await serve(reader, writer, inner, outer, known)

    door = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    outer = door.sockets[0].getsockname()[1]
    print(inner, outer, flush=True)
    await door.serve_forever()


asyncio.run(main(*sys.argv[1:]))
