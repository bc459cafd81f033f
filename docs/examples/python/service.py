#!/usr/bin/env python3
"""The service "greeter" in Python's standard library, found by rollcall's clients.

It registers with the Consul agent at CONSUL_HTTP_ADDR (else 127.0.0.1:8500), says
every few seconds that it is well, and leaves in order on SIGTERM and SIGINT.
"""

import http.client
import http.server
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

SERVICE = "greeter"
TTL = float(os.environ.get("TTL", "30"))  # seconds that a heartbeat counts
SETTLE = 0.5  # seconds until the callers know that this instance leaves
CONSUL = "http://" + os.environ.get("CONSUL_HTTP_ADDR", "127.0.0.1:8500")


def consul(path, body=None):
    """PUT to the agent, past any proxy, within five seconds."""
    data = json.dumps(body).encode() if body is not None else b""
    request = urllib.request.Request(CONSUL + path, data=data, method="PUT")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        answer.read()


failures = (OSError, http.client.HTTPException)  # all that a request may raise


class Greeter(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections
    timeout = 60  # seconds of a connection's silence

    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self):
        # A request that was meant for another service is refused undone, and
        # its sender goes elsewhere: our address was that service's a moment ago.
        if self.headers.get("Rollcall-Service", SERVICE) != SERVICE:
            self.answer(421, "another service is meant\n")
        elif self.path.startswith("/greet/"):
            name = urllib.parse.unquote(self.path.removeprefix("/greet/"))
            self.answer(200, f"Hello, {name}, from Python!\n")
        else:
            self.answer(404, "no such page\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Rollcall-Service", SERVICE)
        if leaving.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Registration:
    def __init__(self, address, port):
        self.id = f"{SERVICE}-{socket.gethostname()}-{port}"
        self.check = self.id + ":rollcall"
        self.entry = {
            "ID": self.id,
            "Name": SERVICE,
            "Address": address,
            "Port": port,
            "Tags": ["http"],
            "Checks": [
                {
                    "CheckID": self.check,
                    "Name": "heartbeat",
                    "TTL": f"{TTL:g}s",
                    "Status": "passing",
                    "DeregisterCriticalServiceAfter": "1m",
                }
            ],
        }

    def say(self, status, output):
        consul("/v1/agent/check/update/" + self.check, {"Status": status, "Output": output})

    def keep(self):
        """Registers, and says that all is well until the service leaves.

        A 404 says that the entry is gone: it is written anew. Consul may be
        away for as long as it likes.
        """
        registered = False
        while True:
            wait = TTL / 3
            try:
                if not registered:
                    consul("/v1/agent/service/register", self.entry)
                    registered = True
                self.say("passing", "serving")  # the same each time: news wakes every client
            except urllib.error.HTTPError as e:
                registered = registered and e.code != 404
                wait = 1
                print(f"Consul answers {e.code}", flush=True)
            except failures as e:
                wait = 1
                print(f"Consul can't be asked: {e}", flush=True)
            if leaving.wait(wait):
                return

    def leave(self):
        try:
            self.say("critical", "draining")  # the word that keeps it out of panic mode too
            time.sleep(SETTLE)
        except failures as e:
            print(f"Consul can't be told of the drain: {e}", flush=True)

    def deregister(self):
        try:
            consul("/v1/agent/service/deregister/" + self.id)
        except failures as e:
            print(f"Consul keeps the entry for a minute: {e}", flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for each connection
    request_queue_size = 128

    def __init__(self, *args):
        super().__init__(*args)
        self.connections = set()

    def drain(self):
        """Takes no more connections, and ends those there are after their answers."""
        self.shutdown()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RD)  # the next read is the end
            except OSError:
                pass  # it has gone by itself
        self.server_close()


leaving = threading.Event()


def main():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    # The listener comes first: who is in the catalog can be reached.
    address = os.environ.get("ADVERTISE", "127.0.0.1")
    server = Server(("", 0), Greeter)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}).start()
    registration = Registration(address, server.server_port)
    registration.keep()  # until a signal
    registration.leave()
    server.drain()
    registration.deregister()


if __name__ == "__main__":
    main()
