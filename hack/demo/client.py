#!/usr/bin/env python3
"""Clients that ask a model without pause and count: client.py URL MODEL REPORT [CLIENTS]

Each client streams one answer after the other, each on a new connection, as people would. An
answer counts only when it came to its end: a finish reason and the closing [DONE]. REPORT is
rewritten all the time with "OK FAILED"; each failure is a line on standard error. Ends on
SIGTERM or SIGINT, after the answers that are under way.
"""

import http.client
import json
import os
import signal
import sys
import threading
import urllib.parse


def ask(url, model):
    """Streams one answer; raises when it does not come to its end."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=60)
    try:
        body = json.dumps({
            "model": model, "stream": True, "max_tokens": 24, "temperature": 0,
            "messages": [{"role": "user", "content": "Name three trees that keep their leaves."}],
        })
        headers = {"content-type": "application/json", "connection": "close"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status}: {response.read(300)!r}")
        finished = done = False
        for line in response:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                done = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(f"error in the stream: {event['error']}")
            finished = finished or any(choice.get("finish_reason") for choice in event["choices"])
        if not (finished and done):
            raise RuntimeError("the stream broke off")
    finally:
        connection.close()


def main():
    url, model, report = sys.argv[1:4]
    clients = int(sys.argv[4]) if len(sys.argv) > 4 else 4
    stop, lock, counts = threading.Event(), threading.Lock(), {"ok": 0, "failed": 0}
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())

    def write():
        with open(report + ".new", "w", encoding="ascii") as file:
            file.write(f"{counts['ok']} {counts['failed']}\n")
        os.replace(report + ".new", report)

    def run():
        while not stop.is_set():
            try:
                ask(url, model)
                outcome = "ok"
            except (OSError, ValueError, RuntimeError, http.client.HTTPException) as failure:
                print(f"{type(failure).__name__}: {failure}", file=sys.stderr, flush=True)
                outcome = "failed"
                stop.wait(0.2)
            with lock:
                counts[outcome] += 1
                write()

    write()
    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
