"""Measures tinytasks and other servers with wrk, in interleaved rounds. Each server has its own database in a
temporary PostgreSQL that waits for the disk (fsync). To be started by scripts/bench."""

import argparse
import base64
import contextlib
import hmac
import html
import http.client
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
USERS, TASKS = 1000, 100
WRITING = {"create", "toggle", "mixed"}
# From linux/netlink.h and linux/sock_diag.h.
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST, DUMP, DONE = 4, 20, 0x1, 0x300, 3
WORKLOADS = {
    "get": "one task",
    "list": f"all {TASKS} tasks of a user",
    "create": "POST",
    "toggle": "PATCH of `complete`",
    "mixed": "35 % get, 35 % list, 20 % toggle, 8 % create, 2 % delete",
    "health": "`/health`",
    "reject": "get with a badly signed token, answered 401",
    "connect": "get, each time over a new connection (with --https mostly a resumed session), whose making counts in "
    "requests/s and CPU, not in p50 and p99; only if named, because its closed sockets fill the kernel for a minute",
}
USUAL = [name for name in WORKLOADS if name != "connect"]
# The first three settings postpone work, which this script makes PostgreSQL do between measurements.
POSTGRES = "autovacuum=off checkpoint_timeout=1h max_wal_size=8GB shared_buffers=512MB max_connections=300".split()
# The tasks of a user are scattered over the table, as they are when all users write all the time.
SEED = f"""
truncate tasks restart identity;
insert into tasks (user_id, title, description, complete)
  select 'user' || u, 'Task ' || k || ' of user ' || u,
         case when k % 4 > 0 then 'Ask at the front desk for the form, fill it in and bring it back by Friday.' end,
         k % 3 = 0
  from generate_series(1, {TASKS}) k, generate_series(1, {USERS}) u order by k, u;
vacuum analyze tasks;
checkpoint;
"""
LUA = r"""
-- Arguments: workload, file of tokens, users, tasks of each, seed, how many an earlier run has deleted.
local heads, users, tasks, deleted = {}
local random, kinds = math.random, {}

local function call(method, user, task, body)
  local path = "/api/user" .. user .. "/tasks" .. (task and "/" .. (task - 1) * users + user or "")
  local tail = body and "Content-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
  return method .. " " .. path .. heads[user] .. (tail or "\r\n")
end
function kinds.get() return call("GET", random(users), random(tasks)) end
function kinds.list() return call("GET", random(users)) end
function kinds.create()
  return call("POST", random(users), nil, '{"title": "Task ' .. random(1e9) .. '", "description": "Take the stairs."}')
end
function kinds.toggle()
  return call("PATCH", random(users), random(tasks), random(2) == 1 and '{"complete": true}' or '{"complete": false}')
end
-- The upper half of the ids is for deletes, each once; the other requests leave it alone.
function kinds.delete()
  local task = 2 * tasks - math.floor(deleted / users)
  if task <= tasks then return kinds.get() end
  deleted = deleted + 1
  return call("DELETE", (deleted - 1) % users + 1, task)
end
function kinds.mixed()
  local dice = random(100)
  if dice <= 35 then return kinds.get() elseif dice <= 70 then return kinds.list()
  elseif dice <= 90 then return kinds.toggle() elseif dice <= 98 then return kinds.create() end
  return kinds.delete()
end
function request() end

function init(args)
  local host = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n"
  if args[1] == "connect" then host = host .. "Connection: close\r\n" end
  for token in io.lines(args[2]) do heads[#heads + 1] = host .. "Authorization: Bearer " .. token .. "\r\n" end
  users, tasks, deleted = tonumber(args[3]), tonumber(args[4]), tonumber(args[6])
  if args[1] == "mixed" then tasks = math.floor(tasks / 2) end
  math.randomseed(tonumber(args[5]))
  kinds.reject, kinds.connect = kinds.get, kinds.get
  function kinds.health() return "GET /health" .. host .. "\r\n" end
  request = kinds[args[1]]
end

function done(summary, latency)
  local e = summary.errors
  print("RESULT", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout)
end
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def output(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout.strip()


def cluster(*words):
    return output(ROOT / "scripts/cluster", *words)


def sql(url, text):
    """Runs a script on a database with psql, and returns what psql prints."""
    at = urlsplit(url)
    where = {"PGHOST": at.hostname, "PGPORT": str(at.port), "PGUSER": at.username, "PGPASSWORD": at.password}
    return output("psql", "-qXAt", "-v", "ON_ERROR_STOP=1", at.path[1:], input=text, env=os.environ | where)


def certificate(folder):
    """Makes a self-signed certificate and its key, and returns the variables that name their files."""
    files = {"TLS_CERT_FILE": str(folder / "certificate.pem"), "TLS_KEY_FILE": str(folder / "key.pem")}
    key, names = files["TLS_KEY_FILE"], "subjectAltName=DNS:localhost,IP:127.0.0.1"
    output("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    request = ["openssl", "req", "-x509", "-key", key, "-days", "365", "-subj", "/CN=localhost", "-addext", names]
    output(*request, "-out", files["TLS_CERT_FILE"])
    return files


def unverified():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def token(user, secret):
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"sub": user, "user_id": user, "iat": int(time.time()), "exp": int(time.time()) + 86400}
    text = b".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (text + b"." + encode(hmac.digest(secret.encode(), text, "sha256"))).decode()


def tree(root):
    """A process and its descendants."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


class Server:
    """A server under test: its process, and its database."""

    def __init__(self, asked, name, command, folder, given):
        self.asked, self.name, self.given = asked, name, given
        words = shlex.split(command)
        self.command = [os.path.abspath(word) if "/" in word and os.path.exists(word) else word for word in words]
        self.folder = folder / f"server-{name}"
        self.folder.mkdir()
        cluster("createdb", folder / "postgres", name)
        self.url = cluster("url", folder / "postgres", name)
        sql(self.url, (ROOT / "schema.sql").read_text() + SEED)
        self.process = None

    def start(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base = f"{'https' if self.asked.https else 'http'}://127.0.0.1:{self.port}"
        # The caller's other variables are not passed on: with RUST_BACKTRACE, for example, errors would be slower.
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"HOST": "127.0.0.1", "PORT": str(self.port), "DATABASE_URL": self.url} | self.given
        self.log = open(self.folder / "log", "ab")
        # The server gets a session of its own, so that Ctrl-C in the terminal does not end it; stop() does.
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("/health")[0] == 200:
                    return self.check()
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        end = Path(self.log.name).read_text(errors="replace")[-2000:]
        sys.exit(f"{self.name} does not answer {self.base}/health; the end of its log:\n{end}")

    def ask(self, path, bearer="-"):
        """The status and body of an answer, and whether it says that the connection will be closed."""
        if self.asked.https:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=unverified())
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}", "Connection": "close"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), answer.getheader("Connection", "").lower() == "close"

    def check(self):
        """Checks that the server does what the workloads rely on."""
        mine, path, last = token("user7", self.given["JWT_SECRET_KEY"]), "/api/user7/tasks", (TASKS - 1) * USERS + 7
        status, task, closes = self.ask(f"{path}/{last}", mine)
        listed = self.ask(path, mine)[1]
        refused = self.ask(path, token("user7", secrets.token_hex(32)))[0]
        if (status, task.get("id"), listed.get("count"), refused) != (200, last, TASKS, 401):
            sys.exit(f"{self.name} does not serve the same routes: {status} {task}, {refused} for a bad token")
        # If the server did not close the connection, wrk would use it again.
        if "connect" in self.asked.workloads and not closes:
            sys.exit(f"{self.name} does not answer `Connection: close` with the same")

    def stop(self):
        if self.process:
            for number, patience in (signal.SIGTERM, 15), (signal.SIGKILL, 5):
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    os.killpg(self.process.pid, number)
                    self.process.wait(patience)

    def cpu_seconds(self):
        ticks = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:15]))  # user and system, its own and of children that ended
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_mib(self):
        peaks = 0
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                peaks += int(re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[1])
        return peaks / 1024

    def unread(self):
        """The ports of the clients that have sent bytes which the server has not read yet."""
        # /proc/net/tcp is not used: with all the closed sockets that `connect` leaves, reading it takes a processor.
        found, established, port = set(), 1 << 1, self.port.to_bytes(2, "big")
        # sock_diag(7) has the format of the question and of the answers.
        question = struct.pack("=BBxxI2s46x", socket.AF_INET, socket.IPPROTO_TCP, established, port)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.send(struct.pack("=IHHII", 16 + len(question), SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, 0, 0) + question)
            while True:
                answer = kernel.recv(1 << 16)
                while answer:
                    size, kind = struct.unpack_from("=IH", answer)
                    if kind == DONE:
                        return found
                    if kind != SOCK_DIAG_BY_FAMILY:
                        sys.exit("the kernel does not list its TCP sockets: its module tcp_diag may be missing")
                    (client,), (unread,) = struct.unpack_from(">H", answer, 22), struct.unpack_from("=I", answer, 72)
                    if unread:
                        found.add(client)
                    answer = answer[size:]

    def wrk(self, script, workload, tokens, seconds, seed, deleted):
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM
        command = ["wrk", "-t1", f"-c{self.asked.connections}", f"-d{seconds}s", "--timeout=30s", "-s", script]
        command += [self.base, "--", workload, tokens, *map(str, (USERS, TASKS, seed, deleted))]
        cpu, starved = self.cpu_seconds(), None
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            try:
                time.sleep(0.3)
                while load.poll() is None:
                    begun = time.process_time()
                    unread = self.unread()
                    if load.poll() is None:
                        starved = unread if starved is None else starved & unread
                    # With very many sockets a look takes long. It may use at most a twentieth of a processor.
                    time.sleep(max(0.05, 20 * (time.process_time() - begun)))
                said = load.stdout.read()
            finally:
                load.kill()
        result = re.search(r"^RESULT\t(.*)$", said, re.M)
        if not result:
            sys.exit(f"wrk failed with {self.name}: {said}")
        requests, duration, p50, p99, refused, failed = map(float, result[1].split())
        cpu = self.cpu_seconds() - cpu
        self.log.truncate(0)
        return {
            "rate": requests / duration * 1e6,
            "p50": p50 / 1000,
            "p99": p99 / 1000,
            "cpu": cpu * 1000 / max(requests, 1),
            "rss": self.peak_mib(),
            "errors": int(failed + (requests - refused if workload == "reject" else refused)),
            "starved": len(starved or ()),
        }

    def measure(self, files, workload, turn):
        script, tokens = files["lua"], files["bad" if workload == "reject" else "good"]
        self.wrk(script, workload, tokens, 1, 1000 + turn, 0)  # warm-up
        result = self.wrk(script, workload, tokens, self.asked.seconds, turn + 1, USERS * TASKS // 4)
        if workload in WRITING:
            sql(self.url, SEED)
        return result


def table(heads, rows):
    rule = ["---"] * 2 + ["---:"] * (len(heads) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows]) + "\n"


def ratio(ours, theirs):
    each = [a / b if b else float("nan") for a, b in zip(ours, theirs)]
    return f"{median(each):.2f} ({min(each):.2f}–{max(each):.2f})"


def report(setting, results):
    """results: workload → server → one dictionary a round."""
    print("\n".join(f"- {name}: {value}" for name, value in setting.items()), end="\n\n")
    rows, ratios = [], []
    for workload, servers in results.items():
        columns = {server: {key: [one[key] for one in rounds] for key in rounds[0]} for server, rounds in servers.items()}
        for server, column in columns.items():
            rate, p50, p99, cpu = (median(column[key]) for key in ("rate", "p50", "p99", "cpu"))
            rss, errors, starved = max(column["rss"]), sum(column["errors"]), max(column["starved"])
            row = f"{workload}|{server}|{rate:,.0f}|{p50:.2f}|{p99:.2f}|{cpu:.3f}|{rss:.1f}|{errors}|{starved}"
            rows.append(row.split("|"))
            if server != "tinytasks":
                ours = columns["tinytasks"]
                ratios.append([workload, server] + [ratio(ours[key], column[key]) for key in ("rate", "p99", "cpu")])
    heads = "workload|server|requests/s|p50 ms|p99 ms|CPU ms/request|peak RSS MiB|errors|starved"
    print(table(heads.split("|"), rows))
    if ratios:
        print("tinytasks ÷ peer in the same round: median (lowest–highest)\n")
        print(table(["workload", "peer", "requests/s", "p99", "CPU/request"], ratios))


def svg(setting, results):
    """Two panels of grouped bars, in medium colours without background: readable on light and on dark pages."""
    colours = ["#e0701a", "#3d85c6", "#5c9e5c", "#a06cc0", "#a08530", "#8a8a8a"]
    servers = list(next(iter(results.values())))
    bar, left, height = max(24, 44 - 6 * len(servers)), 16, 160
    group = bar * len(servers) + 26
    width = max(left * 2 + group * len(results), 180 * len(servers), 640)
    shapes = []

    def text(x, y, words, size=12, anchor="start"):
        shapes.append(f'<text x="{x}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{html.escape(words)}</text>')

    for number, name in enumerate(servers):
        x = left + number * 180
        shapes.append(f'<rect x="{x}" y="12" width="11" height="11" fill="{colours[number % 6]}"/>')
        text(x + 16, 22, name)
    for key, title, top in ("rate", "requests/s (more is better)", 52), ("p99", "p99 in ms (less is better)", 292):
        base = top + 190
        most = max(one[key] for each in results.values() for rounds in each.values() for one in rounds) or 1
        text(left, top, title, 13)
        shapes.append(f'<path d="M{left} {base}H{width - left}" stroke="#808080"/>')
        for place, (workload, each) in enumerate(results.items()):
            start = left + place * group + 13
            text(start + bar * len(servers) / 2 - 1, base + 16, workload, anchor="middle")
            for number, rounds in enumerate(each.values()):
                x, values = start + number * bar, [one[key] for one in rounds]
                value, tall = median(values), height * median(values) / most
                low, high = (base - height * end / most for end in (min(values), max(values)))
                size = f'width="{bar - 2}" height="{tall:.1f}" fill="{colours[number % 6]}"'
                shapes.append(f'<rect x="{x}" y="{base - tall:.1f}" {size}/>')
                shapes.append(f'<path d="M{x + bar / 2 - 1} {low:.1f}V{high:.1f}" stroke="#808080"/>')
                short = f"{value / 1000:.3g}k" if value >= 1000 else f"{value:.3g}"
                text(x + bar / 2 - 1, high - 4, short, 9, "middle")
    text(left, 528, f"{setting['method']}; {setting['machine']}; {setting['date']}", 10)
    style = f'width="{width}" font-family="system-ui, sans-serif" fill="#808080"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 540" {style}>'
    return "\n".join([head, *shapes, "</svg>\n"])


def arguments():
    about = " ".join(f"{name}: {what}." for name, what in WORKLOADS.items())
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog=about)
    add = parser.add_argument
    https = "all over HTTPS: each server is given TLS_CERT_FILE and TLS_KEY_FILE too. scripts/https-peer is a peer "
    https += "for get, list, health, reject and connect: build it, then --https --peer axum-https=PATH"
    add("--rounds", type=int, default=5)
    add("--seconds", type=int, default=3, help="of each measurement, after one second to warm up")
    add("--workloads", default=",".join(USUAL), help="comma-separated")
    add("--connections", type=int, default=16, help="how many connections wrk opens (default 16)")
    add("--https", action="store_true", help=https)
    add("--server", metavar="COMMAND", help="the server to measure instead of the one built here")
    given = "the variables HOST, PORT, DATABASE_URL, JWT_SECRET_KEY, PATH and HOME, and an existing table"
    peer = f"another server with the same routes, which gets {given}; it runs in an empty folder"
    add("--peer", metavar="NAME=COMMAND", action="append", default=[], help=peer)
    add("--json", metavar="FILE", help="writes every number of every round to FILE")
    add("--svg", metavar="FILE", help="writes a plot to FILE")
    asked = parser.parse_args()
    asked.workloads = asked.workloads.split(",")
    if not set(asked.workloads) <= set(WORKLOADS) or min(asked.rounds, asked.seconds, asked.connections) < 1:
        parser.error(f"workloads are {','.join(WORKLOADS)}; rounds, seconds and connections at least 1")
    asked.peers = dict(peer.partition("=")[::2] for peer in asked.peer)
    if not all(re.fullmatch(r"[\w.-]{1,60}", name) and command for name, command in asked.peers.items()):
        parser.error("a peer is NAME=COMMAND")
    if "tinytasks" in asked.peers or len(asked.peers) < len(asked.peer):
        parser.error("each peer needs a name of its own")
    return asked


def run(asked, folder, servers):
    load = os.getloadavg()[0]
    url = cluster("start", folder / "postgres", *(word for setting in POSTGRES for word in ("-c", setting)))
    secret = secrets.token_hex(32)
    given = {"JWT_SECRET_KEY": secret} | (certificate(folder) if asked.https else {})
    files = {"lua": folder / "workload.lua", "good": folder / "good", "bad": folder / "bad"}
    files["lua"].write_text(LUA)
    for name, key in ("good", secret), ("bad", secrets.token_hex(32)):
        files[name].write_text("".join(token(f"user{u}", key) + "\n" for u in range(1, USERS + 1)))
    binary = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/tinytasks"
    for name, command in ({"tinytasks": asked.server or shlex.quote(str(binary))} | asked.peers).items():
        say(f"starting {name}")
        servers.append(Server(asked, name, command, folder, given))
        servers[-1].start()
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    setting = {
        "machine": f"{os.cpu_count()} × {model[1] if model else platform.machine()}, Linux {platform.release()}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + f", load average {load:.1f} before",
        "versions": f"tinytasks {servers[0].ask('/health')[1].get('version')}, "
        f"PostgreSQL {sql(url, 'show server_version')} ({', '.join(POSTGRES)}), "
        + subprocess.run(["wrk", "-v"], stdout=subprocess.PIPE, text=True).stdout.split(" [")[0],
        "method": f"{asked.connections} connections{' over TLS' if asked.https else ''}, "
        f"{asked.rounds} × {asked.seconds} s, {USERS * TASKS:,} rows",
    }
    results = {workload: {server.name: [] for server in servers} for workload in asked.workloads}
    for turn in range(asked.rounds):
        first = turn % len(servers)
        for workload in asked.workloads:
            say(f"round {turn + 1} of {asked.rounds}: {workload}")
            for server in servers[first:] + servers[:first]:
                results[workload][server.name].append(server.measure(files, workload, turn))
    return setting, results


def main():
    asked = arguments()
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if not asked.server:
        say("building")
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True, stdout=sys.stderr)
    # Not in /tmp, which may be in memory: commits would then not wait for a disk.
    (ROOT / ".data").mkdir(exist_ok=True)
    folder, servers = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / ".data")), []
    try:
        setting, results = run(asked, folder, servers)
    finally:
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)
        for server in servers:
            server.stop()
        cluster("stop", folder / "postgres", "immediate")
        shutil.rmtree(folder)
    report(setting, results)
    if asked.json:
        Path(asked.json).write_text(json.dumps({"setting": setting, "results": results}, indent=1) + "\n")
    if asked.svg:
        Path(asked.svg).write_text(svg(setting, results))


main()
