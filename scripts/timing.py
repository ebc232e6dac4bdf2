"""Tests whether answers or their times reveal what they must not. Started by scripts/timing, which explains it.

The kinds of request that are compared are sent in random order on one connection, so that other load on the
machine affects all of them alike. The statistic is that of Mann and Whitney: the share of pairs in which a request
of one kind took longer than one of the other. 50 % means that the times do not reveal the kind."""

import base64
import bisect
import gc
import hmac
import json
import math
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from urllib.parse import urlsplit

# The distance from 50 % that counts as a difference. It leaves a margin: with 20,000 samples, a kind compared with
# itself stays within 1 % on a busy machine; 20 µs more, which the test must detect, are several times this far.
BOUND = 0.03
INJECTED_NS = 20_000
IDS = range(100_000, 103_000)
# The parts that differ between any two answers.
VARYING = [
    rb"(?m)^date: [^\r]*",
    rb"(?m)^x-request-id: [^\r]*",
    rb'"timestamp":"[^"]*"',
    rb'"request_id":"[^"]*"',
]


def sql(text):
    at = urlsplit(os.environ["DATABASE_URL"])
    where = {"PGHOST": at.hostname, "PGPORT": str(at.port), "PGUSER": at.username, "PGPASSWORD": at.password}
    command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", at.path[1:]]
    subprocess.run(command, input=text, text=True, check=True, env=os.environ | where)


def base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def token(user, spoil=lambda signature: signature):
    claims = {"user_id": user, "exp": int(time.time()) + 86_400}
    parts = {"alg": "HS256", "typ": "JWT"}, claims
    signed = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    signature = hmac.digest(os.environ["JWT_SECRET_KEY"].encode(), signed.encode(), "sha256")
    return f"{signed}.{base64url(spoil(signature))}"


def with_wrong_byte(user, index, chance):
    """A token whose signature has a wrong value in the byte at `index`: a random one for each token."""

    def spoil(signature):
        octets = bytearray(signature)
        octets[index] ^= chance.randrange(1, 256)
        return bytes(octets)

    return token(user, spoil)


class Connection:
    def __init__(self):
        self.open()

    def open(self):
        self.socket = socket.create_connection((os.environ["HOST"], int(os.environ["PORT"])), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request, extra_ns=0):
        """The nanoseconds until the answer has arrived, and the answer."""
        begin = time.perf_counter_ns()
        self.socket.sendall(request)
        answer = self.socket.recv(65536)
        until = time.perf_counter_ns() + extra_ns
        while extra_ns and time.perf_counter_ns() < until:
            pass
        took = time.perf_counter_ns() - begin
        while not self.is_whole(answer, request.startswith(b"HEAD ")):
            more = self.socket.recv(65536)
            if not more:
                sys.exit(f"the connection ends in {answer!r}")
            answer += more
        if b"\r\nConnection: close" in answer:
            self.socket.close()
            self.open()
        return took, answer

    @staticmethod
    def is_whole(answer, has_no_body):
        head, end, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        return bool(end) and (has_no_body or not length or len(body) >= int(length[1]))


def request(method, path, bearer, body=None, fields=""):
    head = f"{method} {path} HTTP/1.1\r\nHost: timing\r\nAuthorization: Bearer {bearer}\r\n{fields}"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body or ''}".encode()


def measure(connection, kinds, samples, status, chance):
    """kinds: name → (function that makes a request, extra nanoseconds). Returns the times of each kind."""
    times = {name: [] for name in kinds}
    order = list(kinds)
    for count in range(samples + samples // 20):
        chance.shuffle(order)
        made = [(name, kinds[name][0](), kinds[name][1]) for name in order]
        for name, asked, extra_ns in made:
            took, answer = connection.ask(asked, extra_ns)
            if answer[9:12] not in status:
                sys.exit(f"{name}: {asked!r} is answered by {answer!r}")
            # The first twentieth of the samples is not counted, because it warms up the service.
            if count >= samples // 20:
                times[name].append(took)
    return times


def share_longer(these, those):
    """The share of pairs in which one of `these` is longer than one of `those`; equal ones count half."""
    those = sorted(those)
    wins = sum(bisect.bisect_left(those, one) + bisect.bisect_right(those, one) for one in these)
    return wins / (2 * len(these) * len(those))


def largest_gap(these, those):
    """The Kolmogorov-Smirnov statistic of the two distributions."""
    these, those = sorted(these), sorted(those)
    return max(
        abs(bisect.bisect_right(these, one) / len(these) - bisect.bisect_right(those, one) / len(those))
        for one in these[::7] + those[::7]
    )


def compare(what, these, those):
    """Prints how the times differ, and returns by how much the difference exceeds the bound."""
    share = share_longer(these, those)
    expected_noise = math.sqrt((len(these) + len(those) + 1) / (12 * len(these) * len(those)))
    shifts = [
        (b - a) / 1000
        for a, b in zip(statistics.quantiles(those, n=20), statistics.quantiles(these, n=20))
    ]
    quantiles = "  ".join(f"p{5 * i + 5} {shifts[i]:+.1f}" for i in (1, 4, 9, 14, 17))
    print(
        f"{what:58} {share:6.1%}  z {(share - 0.5) / expected_noise:+6.1f}"
        f"  KS {largest_gap(these, those):.3f}  median {statistics.median(those) / 1000:.1f} µs, shifts in µs: {quantiles}",
        flush=True,
    )
    # With few samples, chance alone causes larger differences.
    return abs(share - 0.5) - max(BOUND, 5 * expected_noise)


def plain(answer):
    for pattern in VARYING:
        answer = re.sub(pattern, b"", answer, flags=re.IGNORECASE)
    return answer


def prepare(chance):
    """Assigns each id of one range at random to another user's task, an own task, or no task, so that the order of
    the ids reveals nothing."""
    owners = {task: chance.choice(["alice", "bob", None]) for task in IDS}
    rows = (f"({task}, '{owner}', 'Task of {owner}')" for task, owner in owners.items() if owner)
    sql(f"insert into tasks (id, user_id, title) values {', '.join(rows)}; vacuum analyze tasks;")
    return {owner: [task for task in IDS if owners[task] == owner] for owner in ("alice", "bob", None)}


def main(samples, seed):
    chance = random.Random(seed)
    connection, differences, seen = Connection(), [], []
    ids = prepare(chance)
    bob = token("bob")
    print(f"{samples} samples of each kind, seed {seed}; the share of pairs in which the first took longer")

    def on(owner, method, body=None, fields=""):
        return lambda: request(method, f"/api/bob/tasks/{chance.choice(ids[owner])}", bob, body, fields)

    patch, put = '{"title": "Taken over"}', '{"title": "Taken over", "complete": true}'
    tag = 'If-Match: "660c798769307"\r\n'
    cases = [
        ("GET", None, "", samples),
        ("PATCH", patch, "", samples),
        ("DELETE", None, "", samples),
        ("HEAD", None, "", samples // 4),
        ("PUT", put, "", samples // 4),
        ("PATCH", patch, tag, samples // 4),
        ("DELETE", None, tag, samples // 4),
    ]
    for method, body, fields, count in cases:
        kinds = {
            "foreign": (on("alice", method, body, fields), 0),
            "nobody's": (on(None, method, body, fields), 0),
            "nobody's again": (on(None, method, body, fields), 0),
        }
        if method == "GET":
            kinds |= {"nobody's + 20 µs": (on(None, method), INJECTED_NS), "own": (on("bob", method), 0)}
        answers = {name: {plain(connection.ask(kinds[name][0]())[1]) for _ in range(50)} for name in kinds}
        if answers["foreign"] != answers["nobody's"] or len(answers["foreign"]) != 1:
            differences.append(f"{method}: the answers differ: {answers}")
        name = method + (" with If-Match" if fields else "")
        status = [b"200", b"404"] if method == "GET" else [b"404"]
        times = measure(connection, kinds, max(count, 1), status, chance)
        base = times["nobody's"]
        if compare(f"{name}: foreign task, nobody's id", times["foreign"], base) > 0:
            differences.append(f"{name}: the time tells a foreign task")
        compare(f"{name}: nobody's id, nobody's id (noise)", times["nobody's again"], base)
        if method == "GET":
            for other in ("nobody's + 20 µs", "own"):
                far = compare(f"{name}: {other}, nobody's id (self-check)", times[other], base)
                seen.append((other, far))

    # Whether another user or task exists must not matter: 403 comes before the database is asked.
    def at(owner):
        return lambda: request("GET", f"/api/{owner}/tasks/{chance.choice(ids['alice'])}", bob)

    kinds = {name: (at(owner), 0) for name, owner in (("foreign", "alice"), ("nobody's", "ghost"))}
    answers = {plain(connection.ask(make())[1]) for make, _ in list(kinds.values()) * 50}
    if len(answers) != 1:
        differences.append(f"another's path: the answers differ: {answers}")
    times = measure(connection, kinds, max(samples // 4, 1), [b"403"], chance)
    if compare("GET: another's path, with the task and without", *times.values()) > 0:
        differences.append("the time tells a foreign task on its own path")

    def refused(index):
        return request("GET", "/api/bob/tasks/1", with_wrong_byte("bob", index, chance))

    places = {"first": 0, "middle": 15, "last": 31}
    wrong = {name: [refused(index) for _ in range(256)] for name, index in places.items()}
    kinds = {f"{name} byte": (lambda made=made: chance.choice(made), 0) for name, made in wrong.items()}
    kinds["first byte again"] = kinds["first byte"]
    kinds["first byte + 20 µs"] = (kinds["first byte"][0], INJECTED_NS)
    # Valid tokens are mixed in: they are remembered, and a refused token is looked up among them first.
    kinds["good"] = (lambda: request("GET", f"/api/bob/tasks/{ids['bob'][0]}", bob), 0)
    answers = {plain(connection.ask(one)[1]) for made in wrong.values() for one in made}
    if len(answers) != 1:
        differences.append(f"tokens: the answers differ: {answers}")
    times = measure(connection, kinds, samples, [b"401", b"200"], chance)
    for one, other in ("middle", "first"), ("last", "first"), ("last", "middle"):
        if compare(f"signature: {one} byte wrong, {other}", times[f"{one} byte"], times[f"{other} byte"]) > 0:
            differences.append(f"signature: the time tells {one} from {other}")
    first = times["first byte"]
    compare("signature: first byte wrong, first (noise)", times["first byte again"], first)
    far = compare("signature: first + 20 µs, first (self-check)", times["first byte + 20 µs"], first)
    seen.append(("first byte + 20 µs", far))

    for difference in differences:
        print(difference)
    if differences:
        return 1
    blind = [what for what, far in seen if far <= 0 and "20 µs" in what]
    if blind:
        print(f"no difference, but the test would not have seen one: {', '.join(blind)}")
        return 2
    print(f"no difference beyond {BOUND:.0%}, and the answers are equal byte by byte")
    return 0


if __name__ == "__main__":
    gc.disable()
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
