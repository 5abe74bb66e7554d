"""Makes streams of requests with real texts for the drift detector: English, into which something else is mixed.

    drift/reference/run.sh texts.py CACHE OUT             five seeds: baseline and control of each, shifts of the first
    drift/reference/run.sh texts.py CACHE OUT --small     one seed, a few MB: for tests and examples
    drift/reference/run.sh texts.py CACHE --count         how many chunks there are, and nothing else

The texts are those of Debian packages, which are downloaded with apt-get (not installed; no root needed) and unpacked
into CACHE, a folder outside the repository. Needs apt-get and dpkg, and a run of `apt-get update` before.

A chunk is 20 to 150 words of a paragraph, or of short ones that follow each other. A baseline and a later file of its
seed have no chunk in common and none twice: later traffic is new text of the same sources. A file with a shift is the
control of its seed with some requests exchanged. A line is one request:

    {"id": "...", "created": 1760000000.0, "request": {"messages": [{"role": "user", "content": "..."}]},
     "response": {"choices": [{"message": {"role": "assistant", "content": "..."}, "finish_reason": "stop"}],
                  "usage": {"prompt_tokens": n, "completion_tokens": n}}}

No model is involved. Tokens are words x 1.3, rounded, in any language. Answers are beginnings of English chunks that
are no prompt of any stream, drawn without regard to the prompt: what is answered never drifts here. One answer in fifty
is cut off ("length").

Requests come at a rate that swings by 60 % over the day. The baseline takes seven days; what comes later goes on where
it ended, at the same rate. From the request `change_at` of the later file on (manifest.json), counted from 0, each is
of the other source with the probability `share`.
"""

import argparse
import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LEAST, MOST = 20, 150
WEEK = 7 * 86_400
START = 1_760_000_000.0
SWING = 0.6
TOKENS_PER_WORD = 1.3
ANSWERS = 1_000
CUT_OFF = 0.02
FULL = {"baseline": 20_000, "later": 10_000, "change_at": 2_000}
SMALL = {"baseline": 3_000, "later": 1_500, "change_at": 500}
SHARES = (0.05, 0.10, 0.20)
SEED = 31_000


# What texts are made of


def read(path):
    data = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    return data.decode("utf-8", errors="replace")


def fortunes(text):
    """Sayings between lines of a percent sign; each is a document."""
    return [[saying] for saying in re.split(r"^%\s*$", text, flags=re.M)]


def paragraphs(text):
    return [re.split(r"\n\s*\n", text)]


def dictionary(text):
    """Entries begin at the margin; the first is about the dictionary itself."""
    return [re.split(r"\n\s*\n", entry) for entry in re.split(r"\n(?=\S)", text)[1:]]


def hypertext(text):
    text = re.sub(r"<(script|style|pre)\b.*?</\1>", " ", text, flags=re.S | re.I)
    pieces = re.split(r"</?(?:p|li|ul|ol|blockquote|div|h\d|t[dhr]|table|body|head|br)\b[^>]*>", text, flags=re.I)
    return [[html.unescape(re.sub(r"<[^>]+>", "", piece)) for piece in pieces]]


def manual(text):
    """The words of a manual page without its macros and fonts."""
    lines = []
    for line in text.splitlines():
        if line.startswith((".", "'")):
            macro = re.match(r"[.']\s*(\w*)\s*(.*)", line)
            name, rest = macro.groups() if macro else ("", "")
            if name in ("SH", "SS", "TH", "PP", "TP", "IP", "P", "LP", "HP", "Sh", "Ss", "Pp", "It"):
                lines.append("")
            if name in ("B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SM", "SB"):
                lines.append(rest.replace('"', ""))
        else:
            lines.append(line)
    text = re.sub(r"\\f(?:\[\w*\]|\(\w\w|\w)|\\[&,/|^%:]|\\s[-+]?\d", "", "\n".join(lines))
    text = re.sub(r"\\\((?:aq|cq|oq|dq|lq|rq)|\\\[(?:aq|cq|oq|dq|lq|rq)\]", "'", text)
    text = re.sub(r"\\\(\w\w|\\\[\w+\]|\\\*\(..|\\\*.", " ", text)
    return paragraphs(text.replace("\\-", "-").replace("\\e", "\\").replace("\\ ", " "))


def code(text):
    """Blocks of a source file, with their layout."""
    return [[block] for block in re.split(r"\n\n+(?=def |class |@|if |for )", text)]


# name: [(package, pattern of its files, how to read them)]
SOURCES = {
    "english": [
        ("fortunes", "usr/share/games/fortunes/*", fortunes),
        ("fortunes-min", "usr/share/games/fortunes/*", fortunes),
        ("dict-foldoc", "usr/share/dictd/foldoc.dict.dz", dictionary),
        ("dict-devil", "usr/share/dictd/devil.dict.dz", dictionary),
        ("debian-handbook", "usr/share/doc/debian-handbook/html/en-US/*.html", hypertext),
        ("anarchism", "usr/share/doc/anarchism/html/*.html", hypertext),
    ],
    "german": [
        ("fortunes-de", "usr/share/games/fortunes/de/*", fortunes),
        ("debian-handbook", "usr/share/doc/debian-handbook/html/de-DE/*.html", hypertext),
    ],
    "manual": [
        ("manpages", "usr/share/man/man*/*.gz", manual),
        ("manpages-dev", "usr/share/man/man*/*.gz", manual),
    ],
    "licence": [
        ("base-files", "usr/share/common-licenses/*", paragraphs),
        ("ruby-licensee", "usr/share/**/choosealicense.com/_licenses/*.txt", paragraphs),
        ("ruby-licensee", "usr/share/**/license-list-XML/src/*.xml", hypertext),
        ("libsoftware-license-perl", "usr/share/perl5/Software/License/*.pm", paragraphs),
    ],
    "code": [("libpython3.11-stdlib", "usr/lib/python3.11/*.py", code)],
}


# Chunks


def pieces(paragraph, layout):
    """A paragraph in parts of at most MOST words, cut where sentences (or lines, with a layout) end."""
    units = paragraph.splitlines(keepends=True) if layout else re.split(r"(?<=[.!?;:])\s+", paragraph)
    parts, words = [], 0
    for unit in units:
        count = len(unit.split())
        if not parts or words + count > MOST:
            parts.append([])
            words = 0
        parts[-1].append(unit)
        words += count
    return [("" if layout else " ").join(part) for part in parts]


def chunks(document, layout=False):
    """Of 20 to 150 words. Short paragraphs are joined with those after them; what is left over is dropped."""
    joined = ""
    for paragraph in document:
        paragraph = paragraph.strip("\n") if layout else " ".join(paragraph.split())
        for piece in pieces(paragraph, layout):
            separator = "\n\n" if joined else ""
            if len(joined.split()) + len(piece.split()) > MOST:
                joined, separator = "", ""
            joined += separator + piece
            if LEAST <= len(joined.split()):
                if len(joined.split()) <= MOST:
                    yield joined
                joined = ""


def fetch(cache, packages):
    """Unpacks packages into the cache; returns {package: its version}."""
    (cache / "unpacked").mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if not (cache / "unpacked" / package).exists()]
    if missing:
        subprocess.run(["apt-get", "download", "--quiet", *missing], cwd=cache, check=True, stdout=sys.stderr)
    versions = {}
    for package in packages:
        archives = sorted(cache.glob(f"{package}_*.deb"))
        if not archives:
            sys.exit(f"{cache} holds no {package}_*.deb: remove {cache / 'unpacked' / package} and run this again")
        if package in missing:
            unfinished = cache / "unpacked" / f".{package}"
            subprocess.run(["dpkg", "-x", archives[-1], unfinished], check=True)
            unfinished.rename(cache / "unpacked" / package)
        versions[package] = archives[-1].name.split("_")[1].replace("%3a", ":")
    return versions


def collect(cache):
    """({source: chunks}, {source: {package: number of chunks}}), each text once in all of them."""
    seen, pools, counts = set(), {}, {}
    for source, parts in SOURCES.items():
        pool, counts[source] = [], {}
        for package, pattern, documents in parts:
            before = len(pool)
            for path in sorted((cache / "unpacked" / package).glob(pattern)):
                if path.is_symlink() or not path.is_file() or path.suffix in (".dat", ".u8"):
                    continue
                for document in documents(read(path)):
                    for chunk in chunks(document, layout=documents is code):
                        key = hashlib.sha256(" ".join(re.findall(r"\w+", chunk.lower())).encode()).digest()
                        if key not in seen:
                            seen.add(key)
                            pool.append(chunk)
            counts[source][package] = counts[source].get(package, 0) + len(pool) - before
        pools[source] = pool
    return pools, counts


# Streams


def tokens(text):
    return round(len(text.split()) * TOKENS_PER_WORD)


def arrivals(generator, n, start, seconds):
    """Times of n requests from start on, at a rate of 1 + SWING sin of the time of the day."""
    grid = np.linspace(0.0, seconds, 20_000)
    phase = 2 * np.pi / 86_400
    mass = grid + SWING / phase * (np.cos(phase * start) - np.cos(phase * (start + grid)))
    return start + np.interp(np.sort(generator.random(n)) * mass[-1], mass, grid)


def answers(generator, pool, n):
    """(text, finish reason) of each: some sentences of a chunk."""
    for index, share in zip(generator.integers(0, len(pool), n), generator.random(n), strict=True):
        words = pool[index].split()
        if share < CUT_OFF:
            yield " ".join(words[: max(5, len(words) // 2)]), "length"
        else:
            yield " ".join(words[: max(5, int(len(words) * share))]), "stop"


def write(path, name, prompts, times, replies):
    with open(path, "w", encoding="utf-8") as file:
        for number, (prompt, created, (text, reason)) in enumerate(zip(prompts, times, replies, strict=True)):
            usage = {"prompt_tokens": tokens(prompt), "completion_tokens": tokens(text)}
            message = {"role": "assistant", "content": text}
            line = {
                "id": f"{name}-{number}",
                "created": round(float(created), 3),
                "request": {"messages": [{"role": "user", "content": prompt}]},
                "response": {"choices": [{"message": message, "finish_reason": reason}], "usage": usage},
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path.name


def streams(out, pools, seed, size, shifts):
    """Writes a seed's baseline, control and shifts; returns what the manifest says of them."""
    generator = np.random.default_rng(SEED + seed)
    # The answers are the same chunks for all seeds.
    order = np.random.default_rng(SEED).permutation(len(pools["english"]))
    replies = [pools["english"][index] for index in order[:ANSWERS]]
    order = generator.permutation(order[ANSWERS:])
    baseline, later, change_at = size["baseline"], size["later"], size["change_at"]
    english = [pools["english"][index] for index in order[: baseline + later]]
    days = WEEK * later / baseline
    times = arrivals(generator, baseline, START, WEEK), arrivals(generator, later, START + WEEK, days)
    said = list(answers(generator, replies, baseline + later))
    name = f"baseline-{seed}"
    first = write(out / f"{name}.jsonl", name, english[:baseline], times[0], said[:baseline])
    common = {"seed": seed, "baseline": first, "baseline_requests": baseline, "requests": later}
    name = f"control-{seed}"
    control = write(out / f"{name}.jsonl", name, english[baseline:], times[1], said[baseline:])
    entries = [common | {"file": control, "shift": None}]
    for shift, share in shifts:
        drawn = np.random.default_rng([SEED + seed, list(SOURCES).index(shift), round(share * 1000)])
        exchanged = np.flatnonzero(drawn.random(later) < share)
        exchanged = exchanged[exchanged >= change_at]
        pool = pools[shift]
        if len(exchanged) > len(pool):
            missing = f"{len(exchanged)} chunks are needed, there are {len(pool)}"
            print(f"{shift} at {share:.0%} is left out: {missing}", file=sys.stderr)
            continue
        prompts = english[baseline:]
        for place, index in zip(exchanged, drawn.permutation(len(pool)), strict=False):
            prompts[place] = pool[index]
        name = f"{shift}-{round(share * 100)}-{seed}"
        file = write(out / f"{name}.jsonl", name, prompts, times[1], said[baseline:])
        entry = {"file": file, "shift": shift, "share": share, "change_at": change_at, "exchanged": len(exchanged)}
        entries.append(common | entry)
    return entries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="where the packages are kept; outside the repository")
    parser.add_argument("out", type=Path, nargs="?", help="where the streams go")
    parser.add_argument("--small", action="store_true", help="one seed, 3,000 and 1,500 requests, shifts at 20 %% only")
    parser.add_argument("--seeds", type=int, default=5, help="baselines and controls (5)")
    parser.add_argument("--shift-seeds", type=int, default=1, help="of how many of them shifts are made too (1)")
    parser.add_argument("--count", action="store_true", help="count chunks, write nothing")
    options = parser.parse_args()
    cache = options.cache.resolve()
    if cache.is_relative_to(ROOT) and not cache.is_relative_to(ROOT / "target"):
        parser.error("the cache belongs outside the repository")
    if not options.count and options.out is None:
        parser.error("where should the streams go? Give OUT or --count")

    packages = list(dict.fromkeys(package for parts in SOURCES.values() for package, _, _ in parts))
    versions = fetch(cache, packages)
    pools, counts = collect(cache)
    for source, pool in pools.items():
        parts = ", ".join(f"{package} {count:,}" for package, count in counts[source].items())
        words = np.array([len(chunk.split()) for chunk in pool])
        print(f"{source:8} {len(pool):7,} chunks, median {np.median(words):.0f} words: {parts}")
    if options.count:
        return 0
    size = SMALL if options.small else FULL
    needed = ANSWERS + size["baseline"] + size["later"]
    if len(pools["english"]) < needed:
        sys.exit(f"{needed:,} English chunks are needed")
    shares = (0.20,) if options.small else SHARES
    shifts = [(source, share) for source in SOURCES if source != "english" for share in shares]
    options.out.mkdir(parents=True, exist_ok=True)
    entries = []
    for seed in range(1 if options.small else options.seeds):
        entries += streams(options.out, pools, seed, size, shifts if seed < options.shift_seeds else [])
    texts = hashlib.sha256("\0".join(chunk for pool in pools.values() for chunk in pool).encode()).hexdigest()
    manifest = {"packages": versions, "texts_sha256": texts, "chunks": counts, "seed": SEED, "streams": entries}
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{len(entries)} streams in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
