#!/usr/bin/env python3
"""Finds a service's instances, and asks one, with Python's standard library.

    client.py greeter /greet/Ann         by Consul's HTTP API
    client.py --dns greeter /greet/Ann   by Consul's DNS
    client.py --watch greeter            prints the instances, and each change of them

Consul's HTTP API is at CONSUL_HTTP_ADDR (else 127.0.0.1:8500), its DNS at
CONSUL_DNS_ADDR (else 127.0.0.1:8600).
"""

import http.client
import json
import os
import random
import secrets
import socket
import struct
import sys
import time

HTTP_ADDR = os.environ.get("CONSUL_HTTP_ADDR", "127.0.0.1:8500")
DNS_ADDR = os.environ.get("CONSUL_DNS_ADDR", "127.0.0.1:8600")
WAIT = 60  # seconds that a question about changes may wait


def instances(service, index=0):
    """The passing instances as (host, port), and the index of that answer.

    With an index, the agent answers when that is no longer the newest, or WAIT
    (and up to a sixteenth more) is over.
    """
    connection = http.client.HTTPConnection(HTTP_ADDR, timeout=WAIT * 17 / 16 + 5)
    try:
        path = f"/v1/health/service/{service}?passing"
        if index:
            path += f"&index={index}&wait={WAIT}s"
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise OSError(f"Consul answers {answer.status}: {body[:200]!r}")
        found = sorted(
            (entry["Service"]["Address"] or entry["Node"]["Address"], entry["Service"]["Port"])
            for entry in json.loads(body)
        )
        return found, int(answer.headers.get("X-Consul-Index", 0))
    finally:
        connection.close()


def watch(service):
    """Yields the instances, and again whenever they have changed."""
    index, known, pause = 0, None, 1
    while True:
        try:
            found, newest = instances(service, index)
        except (OSError, ValueError, http.client.HTTPException) as e:
            print(f"keeping what is known: {e}", file=sys.stderr)
            time.sleep(pause + random.random())
            index, pause = 0, min(2 * pause, 30)
            continue
        pause = 1
        # An index that goes back, or is none, begins anew.
        index = newest if newest >= index else 0
        if index == 0:
            time.sleep(1)
        if found != known:
            known = found
            yield found


def by_dns(service):
    """The passing instances as (host, port), by one SRV question over UDP.

    Truncated answers are an error here: ask over TCP, or by the HTTP API, for
    services with many instances.
    """
    number = secrets.randbits(16)
    name = b"".join(bytes([len(label)]) + label for label in f"{service}.service.consul".encode().split(b"."))
    question = struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack("!2H", 33, 1)
    host, _, port = DNS_ADDR.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.connect((host, int(port)))
        s.send(question)
        answer = s.recv(65535)

    got, flags, questions, answers, authorities, more = struct.unpack_from("!6H", answer)
    if got != number or flags & 0x8000 == 0:
        raise OSError("that is no answer to our question")
    if flags & 0x0200:
        raise OSError("the answer is truncated")
    if flags & 0x000F == 3:
        return []  # no such name
    if flags & 0x000F:
        raise OSError(f"the DNS answers with error {flags & 0x000F}")

    def read_name(at):
        """The name at an offset, and where it ends; a pointer leads elsewhere."""
        labels, end = [], None
        for _ in range(128):
            n = answer[at]
            if n >= 0xC0:
                end = end or at + 2
                at = (n & 0x3F) << 8 | answer[at + 1]
            elif n == 0:
                return ".".join(labels), end or at + 1
            else:
                labels.append(answer[at + 1 : at + 1 + n].decode())
                at += 1 + n
        raise OSError("a name without an end")

    at = 12
    for _ in range(questions):
        at = read_name(at)[1] + 4
    targets, addresses = [], {}
    for _ in range(answers + authorities + more):
        owner, at = read_name(at)
        kind, _, _, size = struct.unpack_from("!2HIH", answer, at)
        at += 10
        if kind == 33:  # SRV: priority, weight, port, target
            targets.append((read_name(at + 6)[0], struct.unpack_from("!H", answer, at + 4)[0]))
        elif kind in (1, 28):  # A, AAAA
            family = socket.AF_INET if kind == 1 else socket.AF_INET6
            addresses[owner] = socket.inet_ntop(family, answer[at : at + size])
        at += size
    return sorted((addresses[target], port) for target, port in targets if target in addresses)


def ask(service, path, found):
    """Asks the instances in random order until one answers for the service."""
    random.shuffle(found)
    for host, port in found:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", path, headers={"Rollcall-Service": service})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 421:  # else the address is another service's by now
                return answer.status, body
        except (OSError, http.client.HTTPException) as e:
            print(f"{host}:{port}: {e}", file=sys.stderr)
        finally:
            connection.close()
    raise SystemExit(f"no instance of {service} answers ({len(found)} known)")


def main():
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--watch":
        for found in watch(arguments[1]):
            print(len(found), *(f"{host}:{port}" for host, port in found), flush=True)
        return
    dns = arguments[:1] == ["--dns"]
    if len(arguments) != 2 + dns:
        raise SystemExit(__doc__)
    service, path = arguments[dns:]
    status, body = ask(service, path, by_dns(service) if dns else instances(service)[0])
    sys.stdout.write(body.decode())
    if status != 200:
        raise SystemExit(f"{service} answers {status}")


if __name__ == "__main__":
    main()
