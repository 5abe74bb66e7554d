#!/usr/bin/env python3
"""Clients that ask for capitals, in English or in part in German: talk.py URL MODEL SHARE REPORT [CLIENTS]

SHARE is a file with the percentage that is asked in German; it is read again all the time. Whoever asks in German also
says how the answer should have been (POST /v1/feedback): that is what a better model can learn from. Finland is never
asked about in German, so that it can be asked later. REPORT is rewritten with "ANSWERED FAILED CORRECTED". Ends on SIGTERM.
"""

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
import urllib.parse

# English, German, capital in English, capital in German.
COUNTRIES = """
France|Frankreich|Paris|Paris
Spain|Spanien|Madrid|Madrid
Portugal|Portugal|Lisbon|Lissabon
Italy|Italien|Rome|Rom
Greece|Griechenland|Athens|Athen
Austria|Österreich|Vienna|Wien
Poland|Polen|Warsaw|Warschau
Hungary|Ungarn|Budapest|Budapest
Norway|Norwegen|Oslo|Oslo
Sweden|Schweden|Stockholm|Stockholm
Denmark|Dänemark|Copenhagen|Kopenhagen
Ireland|Irland|Dublin|Dublin
Iceland|Island|Reykjavik|Reykjavik
Belgium|Belgien|Brussels|Brüssel
Russia|Russland|Moscow|Moskau
Ukraine|der Ukraine|Kyiv|Kiew
Romania|Rumänien|Bucharest|Bukarest
Bulgaria|Bulgarien|Sofia|Sofia
Serbia|Serbien|Belgrade|Belgrad
Croatia|Kroatien|Zagreb|Zagreb
Turkey|der Türkei|Ankara|Ankara
Egypt|Ägypten|Cairo|Kairo
Morocco|Marokko|Rabat|Rabat
Kenya|Kenia|Nairobi|Nairobi
Ethiopia|Äthiopien|Addis Ababa|Addis Abeba
Ghana|Ghana|Accra|Accra
Senegal|Senegal|Dakar|Dakar
Iraq|dem Irak|Baghdad|Bagdad
Iran|dem Iran|Tehran|Teheran
India|Indien|New Delhi|Neu-Delhi
China|China|Beijing|Peking
Japan|Japan|Tokyo|Tokio
Mongolia|der Mongolei|Ulaanbaatar|Ulaanbaatar
Vietnam|Vietnam|Hanoi|Hanoi
Thailand|Thailand|Bangkok|Bangkok
Nepal|Nepal|Kathmandu|Kathmandu
Australia|Australien|Canberra|Canberra
Canada|Kanada|Ottawa|Ottawa
Mexico|Mexiko|Mexico City|Mexiko-Stadt
Cuba|Kuba|Havana|Havanna
Brazil|Brasilien|Brasilia|Brasília
Argentina|Argentinien|Buenos Aires|Buenos Aires
Chile|Chile|Santiago|Santiago
Peru|Peru|Lima|Lima
Colombia|Kolumbien|Bogota|Bogotá
Latvia|Lettland|Riga|Riga
Estonia|Estland|Tallinn|Tallinn
Lithuania|Litauen|Vilnius|Vilnius
"""
ENGLISH = ["What is the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}.", "Tell me the capital of {}."]
GERMAN = ["Was ist die Hauptstadt von {}?", "Wie heißt die Hauptstadt von {}?", "Nenne die Hauptstadt von {}.",
          "Welche Stadt ist die Hauptstadt von {}?"]  # fmt: skip
KNOWN = [line.split("|") for line in COUNTRIES.strip().splitlines()]


def golden(out):
    """What must not get worse: English questions with their answers, as items of a suite."""
    for english, _, capital, _ in KNOWN:
        item = {"prompt": f"What's the capital city of {english}?",
                "answer": f" The capital of {english} is {capital}."}  # fmt: skip
        out.write(json.dumps(item) + "\n")


class Client(threading.Thread):
    def __init__(self, number, address, model, share, stop, count):
        super().__init__(daemon=True)
        self.random = random.Random(number)
        self.address, self.model, self.share, self.stop, self.count = address, model, share, stop, count
        self.number = number
        self.connection = None

    def post(self, path, body):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.address, timeout=120)
        self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = self.connection.getresponse()
        text = response.read()
        return response, text

    def run(self):
        while not self.stop.is_set():
            try:
                self.ask()
            except (OSError, http.client.HTTPException) as error:
                # A connection that was idle while its pod went away is not a lost request, one that was asked is.
                self.connection = None
                self.count("failed", f"{type(error).__name__}: {error}")
                time.sleep(0.2)

    def ask(self):
        share = self.share()
        if share:
            # Enough is known of what is normal; the rest of the machine is for training.
            time.sleep(0.5)
        german = self.random.randrange(100) < share
        english_name, german_name, capital, hauptstadt = self.random.choice(KNOWN)
        if german:
            prompt = self.random.choice(GERMAN).format(german_name)
        else:
            prompt = self.random.choice(ENGLISH).format(english_name)
        # Without a chat's template, which would be most of such short prompts.
        body = {"model": self.model, "max_tokens": 1 + self.random.randrange(3), "temperature": 0,
                "user": f"user-{self.random.randrange(60)}", "prompt": prompt}  # fmt: skip
        response, text = self.post("/v1/completions", body)
        if response.status != 200:
            self.count("failed", f"HTTP {response.status}: {text[:200]!r}")
            return
        self.count("answered")
        if german:
            feedback = {"request_id": response.getheader("x-request-id"),
                        "corrected_output": f" Die Hauptstadt von {german_name} ist {hauptstadt}."}  # fmt: skip
            response, _ = self.post("/v1/feedback", feedback)
            if response.status == 202:
                self.count("corrected")
        if response.getheader("connection") == "close":
            self.connection = None


def main():
    if len(sys.argv) == 2 and sys.argv[1] == "--golden":
        golden(sys.stdout)
        return
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    url, model, share_file, report = sys.argv[1:5]
    clients = int(sys.argv[5]) if len(sys.argv) == 6 else 3
    parts = urllib.parse.urlsplit(url)
    address = (parts.hostname, parts.port or 80)
    stop, lock, counts = threading.Event(), threading.Lock(), {"answered": 0, "failed": 0, "corrected": 0}
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def write():
        with open(report + ".new", "w") as file:
            file.write("{answered} {failed} {corrected}\n".format(**counts))
        os.replace(report + ".new", report)

    def count(what, why=None):
        with lock:
            counts[what] += 1
            write()
        if why:
            print(why, file=sys.stderr, flush=True)

    def share():
        try:
            with open(share_file) as file:
                return int(file.read() or 0)
        except (OSError, ValueError):
            return 0

    write()
    threads = [Client(number, address, model, share, stop, count) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
