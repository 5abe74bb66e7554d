#!/usr/bin/env python3
"""Real text in five languages, for measuring the features: fetched from Debian, never committed (most of it is GPL).

    texts.py FOLDER

downloads and unpacks packages below FOLDER (no root needed) and writes FOLDER/corpora/NAME.jsonl, a text a line as a
JSON string. The examples `refusals`, `repetition` and `embedding` of perennial-drift read them.

| corpus            | packages                                    | licence                                   |
|-------------------|---------------------------------------------|-------------------------------------------|
| fortunes-en       | fortunes, fortunes-min, fortune-anarchism    | BSD (collection), public domain            |
| fortunes-de,es,zh | fortunes-de, fortunes-es, fortunes-zh        | GPL-2+, GPL-2+, GPL-3+                     |
| fortunes-it       | fortunes-it                                  | GPL-2+                                     |
| manual-*          | manpages, manpages-dev, manpages-de,fr,es,zh | GPL, BSD, verbatim; GFDL-1.2+ (zh)         |
| book-*            | debian-handbook, debian-reference-*          | CC-BY-SA-3.0 or GPL-2+; GPL-2+             |
| faq-en            | anarchism                                    | GFDL or GPL                                |
| licences          | /usr/share/doc/*/copyright                   | as they say                                |
| code              | Python's standard library; Rust crates       | PSF; MIT or Apache-2.0                     |
"""

import glob
import gzip
import html
import json
import os
import re
import subprocess
import sys

PACKAGES = """fortunes fortunes-min fortune-anarchism fortunes-de fortunes-es fortunes-zh fortunes-it manpages
manpages-dev manpages-de manpages-fr manpages-es manpages-zh debian-handbook debian-reference-en debian-reference-de
debian-reference-fr debian-reference-es debian-reference-zh-cn anarchism""".split()
BOOKS = {"en": ("en-US", "en"), "de": ("de-DE", "de"), "fr": ("fr-FR", "fr"), "es": ("es-ES", "es"), "zh": ("zh-CN", "zh-cn")}
MANUALS_PER_LANGUAGE = 300


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        return file.read().decode("utf-8", "replace")


def fetch(folder):
    for package in PACKAGES:
        target = f"{folder}/x/{package}"
        if os.path.isdir(target):
            continue
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
        os.makedirs(target)
        for archive in glob.glob(f"{folder}/{package}_*.deb"):
            subprocess.run(["dpkg", "-x", archive, target], check=True)


def fortunes(folder, *packages):
    for package in packages:
        for path in sorted(glob.glob(f"{folder}/x/{package}/usr/share/games/fortunes/**/*", recursive=True)):
            if os.path.isfile(path) and not path.endswith((".dat", ".u8")):
                text = re.sub("\x1b\\[[0-9;]*m", "", read(path))
                yield from (part.strip() for part in re.split(r"^%\s*$", text, flags=re.M))


def paragraphs(page):
    for paragraph in re.findall(r"<(?:p|li|dd)\b[^>]*>(.*?)</(?:p|li|dd)>", page, flags=re.S):
        yield re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", paragraph))).strip()


def book(folder, handbook, reference):
    pages = sorted(glob.glob(f"{folder}/x/debian-handbook/**/html/{handbook}/*.html", recursive=True))
    pages += sorted(glob.glob(f"{folder}/x/debian-reference-{reference}/**/*.html", recursive=True))
    for page in pages:
        yield from paragraphs(read(page))


def manuals(folder, packages, sub):
    pages = [p for q in packages for p in sorted(glob.glob(f"{folder}/x/{q}/usr/share/man/{sub}man[1-8]/*.gz"))]
    pages = [p for p in pages if os.path.isfile(p) and os.path.getsize(p) > 1000]
    for page in pages[:: max(1, len(pages) // MANUALS_PER_LANGUAGE)]:
        shown = subprocess.run(["groff", "-Kutf8", "-Tutf8", "-mandoc", "-P-cbou"], input=gzip.open(page).read(), capture_output=True)
        yield shown.stdout.decode("utf-8", "replace")


def code():
    paths = sorted(glob.glob("/usr/lib/python3*/*.py"))
    paths += sorted(glob.glob(os.path.expanduser("~/.cargo/registry/src/*/*/src/*.rs")))[::20]
    yield from (read(path) for path in paths if os.path.getsize(path) < 200_000)


def write(folder, name, texts):
    kept = list(dict.fromkeys(text for text in texts if text.strip()))
    with open(f"{folder}/corpora/{name}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in kept)
    print(name, len(kept), "texts", sum(map(len, kept)), "characters", flush=True)


def main(folder):
    os.makedirs(f"{folder}/corpora", exist_ok=True)
    fetch(folder)
    write(folder, "fortunes-en", fortunes(folder, "fortunes", "fortunes-min", "fortune-anarchism"))
    for language in ("de", "es", "zh", "it"):
        write(folder, f"fortunes-{language}", fortunes(folder, f"fortunes-{language}"))
    for language, (handbook, reference) in BOOKS.items():
        write(folder, f"book-{language}", book(folder, handbook, reference))
    write(folder, "faq-en", (p for f in sorted(glob.glob(f"{folder}/x/anarchism/**/*.html", recursive=True)) for p in paragraphs(read(f))))
    write(folder, "licences", map(read, sorted(glob.glob("/usr/share/doc/*/copyright"))))
    write(folder, "code", code())
    write(folder, "manual-en", manuals(folder, ["manpages", "manpages-dev"], ""))
    for language, sub in (("de", "de/"), ("fr", "fr/"), ("es", "es/"), ("zh", "zh_CN/")):
        write(folder, f"manual-{language}", manuals(folder, [f"manpages-{language}"], sub))


if __name__ == "__main__":
    main(sys.argv[1])
