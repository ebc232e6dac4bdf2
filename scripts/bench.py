"""Measures tinytasks and its peers with wrk, in interleaved rounds, each server on a database of its own
in a throw-away PostgreSQL that waits for the disk. To be started by scripts/bench, which installs what is missing."""

import argparse
import base64
import contextlib
import hmac
import html
import http.client
import json
import math
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
USERS, TASKS, CONNECTIONS = 1000, 100, 16
WRITING = {"create", "toggle", "mixed"}
WORKLOADS = {
    "get": "one task",
    "list": f"all {TASKS} tasks of a user",
    "create": "POST",
    "toggle": "PATCH of `complete`",
    "mixed": "35 % get, 35 % list, 20 % toggle, 8 % create, 2 % delete",
    "health": "`/health`",
    "reject": "get with a badly signed token, answered 401",
}
# Between measurements this script does what the first three put off.
POSTGRES = "autovacuum=off checkpoint_timeout=1h max_wal_size=8GB shared_buffers=512MB max_connections=300".split()
# A user's tasks lie apart in the table, as they do when all users write all the time.
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
LUA = """
-- Arguments: workload, file of tokens, users, tasks of each, seed, ids that an earlier run deleted.
local heads, users, tasks, deletes = {}, 0, 0, 0

local function call(method, user, task, body)
  local path = "/api/user" .. user .. "/tasks" .. (task and "/" .. (task - 1) * users + user or "")
  local tail = body and "Content-Type: application/json\\r\\nContent-Length: " .. #body .. "\\r\\n\\r\\n" .. body or "\\r\\n"
  return method .. " " .. path .. heads[user] .. tail
end

local kinds = {}
function kinds.get() return call("GET", math.random(users), math.random(tasks)) end
function kinds.list() return call("GET", math.random(users)) end
function kinds.health() return health end
function kinds.create()
  local title = "Task " .. math.random(1e9)
  return call("POST", math.random(users), nil, '{"title": "' .. title .. '", "description": "Take the stairs, the lift is out of order."}')
end
function kinds.toggle()
  return call("PATCH", math.random(users), math.random(tasks), math.random(2) == 1 and '{"complete": true}' or '{"complete": false}')
end
-- The upper half of the ids is for deletes, each once; the others leave it alone.
local function delete()
  local from_top = math.floor(deletes / users)
  if from_top >= tasks then return kinds.get() end
  deletes = deletes + 1
  return call("DELETE", (deletes - 1) % users + 1, 2 * tasks - from_top)
end
function kinds.mixed()
  local dice = math.random(100)
  if dice <= 35 then return kinds.get() elseif dice <= 70 then return kinds.list()
  elseif dice <= 90 then return kinds.toggle() elseif dice <= 98 then return kinds.create() end
  return delete()
end

function init(args)
  local host = " HTTP/1.1\\r\\nHost: " .. wrk.host .. ":" .. wrk.port .. "\\r\\n"
  for token in io.lines(args[2]) do heads[#heads + 1] = host .. "Authorization: Bearer " .. token .. "\\r\\n" end
  health = "GET /health" .. host .. "\\r\\n"
  kinds.reject = kinds.get
  users, tasks, deletes = tonumber(args[3]), tonumber(args[4]), tonumber(args[6])
  if args[1] == "mixed" then tasks = math.floor(tasks / 2) end
  math.randomseed(tonumber(args[5]))
  request = kinds[args[1]]
end

function request() end

function done(summary, latency)
  local e = summary.errors
  print("RESULT", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout)
end
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def cluster(*words):
    return subprocess.run([ROOT / "scripts/cluster", *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def sql(url, text):
    """Lets psql run a script on a database; returns what it prints."""
    at = urlsplit(url)
    where = {"PGHOST": at.hostname, "PGPORT": str(at.port), "PGUSER": at.username, "PGPASSWORD": at.password}
    command = ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", at.path[1:]]
    return subprocess.run(command, input=text, env=os.environ | where, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


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

    def __init__(self, name, command, folder, secret):
        self.name, self.secret = name, secret
        self.command = [os.path.abspath(word) if "/" in word and os.path.exists(word) else word for word in shlex.split(command)]
        # Nothing of the caller's configuration; and a Rust backtrace at each error would be measured too.
        ours = ("PG", "JWT_", "DATABASE_", "BETTER_AUTH_", "RUST_BACKTRACE", "RUST_LOG")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
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
        variables = {"HOST": "127.0.0.1", "PORT": str(self.port), "DATABASE_URL": self.url, "JWT_SECRET_KEY": self.secret}
        self.log = open(self.folder / "log", "ab")
        # In a session of its own, so that Ctrl-C in the terminal leaves it to stop().
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.environment | variables, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        for _ in range(300):
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("/health")[0] == 200:
                    return self.check()
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"{self.name} does not start; the end of its log:\n" + Path(self.log.name).read_text(errors="replace")[-2000:])

    def ask(self, path, bearer="-"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def check(self):
        """What the workloads take for granted."""
        mine, path, last = token("user7", self.secret), "/api/user7/tasks", (TASKS - 1) * USERS + 7
        status, task = self.ask(f"{path}/{last}", mine)
        listed = self.ask(path, mine)[1]
        refused = self.ask(path, token("user7", secrets.token_hex(32)))[0]
        if (status, task.get("id"), listed.get("count"), refused) != (200, last, TASKS, 401):
            sys.exit(f"{self.name} does not serve the same routes: {status} {task}, {refused} for a bad token")

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
        """The clients of which the kernel holds bytes that the server has not read."""
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        mine = f":{self.port:04X}"
        return {row[2] for row in rows if row[1].endswith(mine) and row[3] == "01" and not row[4].endswith(":00000000")}

    def wrk(self, script, workload, tokens, seconds, seed, deleted):
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM starts anew
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout=30s", "-s", script, f"http://127.0.0.1:{self.port}"]
        arguments = [workload, tokens, str(USERS), str(TASKS), str(seed), str(deleted)]
        cpu, starved = self.cpu_seconds(), None
        with subprocess.Popen(["wrk", *options, "--", *arguments], stdout=subprocess.PIPE, text=True) as load:
            try:
                time.sleep(0.3)
                while load.poll() is None:
                    unread = self.unread()
                    if load.poll() is None:
                        starved = unread if starved is None else starved & unread
                    time.sleep(0.05)
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

    def measure(self, asked, files, workload, round):
        script, tokens = files["lua"], files["bad" if workload == "reject" else "good"]
        self.wrk(script, workload, tokens, 1, 1000 + round, 0)  # warm-up
        result = self.wrk(script, workload, tokens, asked.seconds, round + 1, USERS * TASKS // 4)
        if workload in WRITING:
            sql(self.url, SEED)
        return result


def table(heads, rows):
    rule = ["---"] + ["---:"] * (len(heads) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows]) + "\n"


def ratio(ours, theirs):
    each = [a / b for a, b in zip(ours, theirs) if b > 0] or [math.nan]
    return f"{median(each):.2f} ({min(each):.2f}–{max(each):.2f})"


def report(setting, results):
    """results: workload → server → one dictionary a round."""
    print("\n".join(f"- {name}: {value}" for name, value in setting.items()), "\n")
    rows, ratios = [], []
    for workload, servers in results.items():
        for server, rounds in servers.items():
            column = {name: [one[name] for one in rounds] for name in rounds[0]}
            middle = {name: median(values) for name, values in column.items()}
            rows.append([
                workload, server, f"{middle['rate']:,.0f}", f"{middle['p50']:.2f}", f"{middle['p99']:.2f}", f"{middle['cpu']:.3f}",
                f"{max(column['rss']):.1f}", str(sum(column["errors"])), str(max(column["starved"])),
            ])  # fmt: skip
            if server != "tinytasks":
                ours = {name: [one[name] for one in servers["tinytasks"]] for name in column}
                ratios.append([workload, server] + [ratio(ours[name], column[name]) for name in ("rate", "p99", "cpu")])
    print(table(["workload", "server", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "peak RSS MiB", "errors", "starved"], rows))
    if ratios:
        print("tinytasks ÷ peer in the same round: median (lowest–highest)\n")
        print(table(["workload", "peer", "requests/s", "p99", "CPU/request"], ratios))


def svg(setting, results):
    """Two panels of grouped bars. Mid-tones on no background, so that it reads on light and on dark."""
    colours = ["#e0701a", "#3d85c6", "#5c9e5c", "#a06cc0", "#a08530", "#8a8a8a"]
    servers = list(next(iter(results.values())))
    bar = max(16, 44 - 6 * len(servers))
    group, left, panel = bar * len(servers) + 26, 16, 190
    width = max(left * 2 + group * len(results), 560)
    lines = []

    def text(x, y, words, size=12, anchor="start"):
        lines.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{html.escape(words)}</text>')

    for number, name in enumerate(servers):
        x = left + number * (width - 2 * left) / len(servers)
        lines.append(f'<rect x="{x:.1f}" y="12" width="11" height="11" fill="{colours[number % 6]}"/>')
        text(x + 16, 22, name)
    for key, title, top in ("rate", "requests/s (more is better)", 52), ("p99", "99 % answered within, ms (less is better)", 292):
        text(left, top, title, 13)
        base, top = top + panel, top + 30
        most = max(one[key] for each in results.values() for rounds in each.values() for one in rounds) or 1
        for place, (workload, each) in enumerate(results.items()):
            start = left + place * group + 13
            for number, rounds in enumerate(each.values()):
                values = [one[key] for one in rounds]
                x, low, middle, high = start + number * bar, *(
                    base - (base - top) * value / most for value in (min(values), median(values), max(values))
                )  # fmt: skip
                lines.append(f'<rect x="{x}" y="{middle:.1f}" width="{bar - 2}" height="{base - middle:.1f}" fill="{colours[number % 6]}"/>')
                lines.append(f'<path d="M{x + bar / 2 - 1} {low:.1f}V{high:.1f}" stroke="#777"/>')
                value = median(values)
                short = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
                text(x + bar / 2 - 1, high - 4, short if value < 10000 else f"{value / 1000:.0f}k", 9, "middle")
            text(start + bar * len(servers) / 2 - 1, base + 16, workload, anchor="middle")
        lines.append(f'<path d="M{left} {base}H{width - left}" stroke="#777"/>')
    text(left, 528, f"{setting['machine']}; {setting['date']}", 10)
    style = 'font-family="system-ui, sans-serif" fill="#777"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 540" width="{width}" {style}>\n' + "\n".join(lines) + "\n</svg>\n"


def arguments():
    about = " ".join(f"{name}: {what}." for name, what in WORKLOADS.items()).replace("%", "%%")
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog=about)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement, after one to warm up")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="with commas between")
    parser.add_argument("--server", metavar="COMMAND", help="instead of building this one")
    parser.add_argument(
        "--peer", metavar="NAME=COMMAND", action="append", default=[],
        help="a server of the same routes, which takes HOST, PORT, DATABASE_URL and JWT_SECRET_KEY, and finds the table made",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="every number of every round")
    parser.add_argument("--svg", metavar="FILE", help="a plot")
    asked = parser.parse_args()
    asked.workloads = asked.workloads.split(",")
    if not set(asked.workloads) <= set(WORKLOADS) or min(asked.rounds, asked.seconds) < 1:
        parser.error(f"workloads are {','.join(WORKLOADS)}; rounds and seconds at least 1")
    asked.peers = dict(peer.partition("=")[::2] for peer in asked.peer)
    if not all(re.fullmatch(r"[\w.-]{1,60}", name) and command for name, command in asked.peers.items()) or "tinytasks" in asked.peers:
        parser.error("a peer is NAME=COMMAND")
    return asked


def run(asked, folder, servers):
    url = cluster("start", folder / "postgres", *(word for setting in POSTGRES for word in ("-c", setting)))
    secret = secrets.token_hex(32)
    files = {"lua": folder / "workload.lua", "good": folder / "good", "bad": folder / "bad"}
    files["lua"].write_text(LUA)
    for name, key in ("good", secret), ("bad", secrets.token_hex(32)):
        files[name].write_text("".join(token(f"user{u}", key) + "\n" for u in range(1, USERS + 1)))
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/tinytasks"
    for name, command in ({"tinytasks": asked.server or shlex.quote(str(binary))} | asked.peers).items():
        say(f"starting {name}")
        servers.append(Server(name, command, folder, secret))
        servers[-1].start()
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    setting = {
        "machine": f"{os.cpu_count()} × {model[1] if model else platform.machine()}, Linux {platform.release()}",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + f", load average {os.getloadavg()[0]:.1f} before",
        "versions": f"tinytasks {servers[0].ask('/health')[1].get('version')}, PostgreSQL {sql(url, 'show server_version')} ({', '.join(POSTGRES)}), "
        + subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout.split(" [")[0],
        "method": f"{CONNECTIONS} connections, {asked.rounds} × {asked.seconds} s, {USERS * TASKS:,} rows",
    }
    results = {workload: {server.name: [] for server in servers} for workload in asked.workloads}
    for round in range(asked.rounds):
        first = round % len(servers)
        for workload in asked.workloads:
            say(f"round {round + 1} of {asked.rounds}: {workload}")
            for server in servers[first:] + servers[:first]:
                results[workload][server.name].append(server.measure(asked, files, workload, round))
    return setting, results


def main():
    asked = arguments()
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if not asked.server:
        say("building")
        subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True, stdout=sys.stderr)
    # Not in /tmp, which may be memory: then commits would wait for nothing.
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
