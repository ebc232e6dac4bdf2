"""The habits of Python's HTTP clients against the running service: requests, httpx and aiohttp, each as it is by
default. The environment is that of habits.mjs."""

import asyncio
import json
import os
import sys
from collections import namedtuple
from urllib.parse import quote, urlsplit

import aiohttp
import httpx
import requests

SERVICE, USER, TOKEN, OTHER_USER, OTHER_TOKEN = (
    os.environ[name] for name in ("TASKS_URL", "USER_ID", "TOKEN", "OTHER_USER_ID", "OTHER_TOKEN")
)
TASKS = f"{SERVICE}/api/{quote(USER, safe='')}/tasks"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
TYPE = {"Content-Type": "application/json"}
JSON = BEARER | TYPE
MILK = b'{"title": "Buy milk"}'

Answer = namedtuple("Answer", "status headers text")


class Stream:
    """Ten megabytes, whose length is not declared."""

    def __iter__(self):
        return (b" " * 62500 for _ in range(160))

    async def __aiter__(self):
        for piece in self:
            yield piece


class Requests:
    def __init__(self):
        self.session = requests.Session()

    def __call__(self, method, url, headers, body=None):
        body = iter(body) if isinstance(body, Stream) else body
        response = self.session.request(method, url, headers=headers, data=body)
        return Answer(response.status_code, response.headers, response.text)


class Httpx:
    def __init__(self):
        self.client = httpx.Client()

    def __call__(self, method, url, headers, body=None):
        body = iter(body) if isinstance(body, Stream) else body
        response = self.client.request(method, url, headers=headers, content=body)
        return Answer(response.status_code, response.headers, response.text)


class Aiohttp:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.session = None

    def __call__(self, *request):
        return self.loop.run_until_complete(self.send(*request))

    async def send(self, method, url, headers, body=None):
        self.session = self.session or aiohttp.ClientSession()
        body = aiter(body) if isinstance(body, Stream) else body
        async with self.session.request(method, url, headers=headers, data=body) as response:
            return Answer(response.status, response.headers, await response.text())


def expect_problem(answer, status, code):
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json", answer
    problem = json.loads(answer.text)
    assert (problem["status"], problem["error_code"]) == (status, code), answer
    return problem


def connections():
    """The ports of this machine's connections to the service."""
    port = f":{urlsplit(SERVICE).port:04X}"
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file]
    return {row[1] for row in rows if row[2].endswith(port) and row[3] == "01"}


def goes_on(send):
    """None of the connections that there are is closed, and the client can go on."""
    before = connections()
    assert before
    for _ in range(3):
        assert send("GET", TASKS, BEARER).status == 200
    assert before <= connections(), (before, connections())


def journey(send):
    created = send("POST", TASKS, JSON, MILK)
    assert created.status == 201, created
    url, tag = SERVICE + created.headers["Location"], created.headers["ETag"]
    tasks = json.loads(send("GET", TASKS, BEARER).text)["tasks"]
    assert json.loads(created.text)["id"] in [task["id"] for task in tasks]
    changed = send("PATCH", url, JSON | {"If-Match": tag}, b'{"complete": true}')
    assert changed.status == 200 and json.loads(changed.text)["complete"] is True, changed
    stale = send("PUT", url, JSON | {"If-Match": tag}, b'{"title": "t", "complete": false}')
    expect_problem(stale, 412, "PRECONDITION_FAILED")
    deleted = send("DELETE", url, BEARER)
    assert (deleted.status, deleted.text) == (204, ""), deleted


def too_large(send):
    for _ in range(5):
        expect_problem(send("POST", TASKS, JSON, b" " * 10_000_000), 413, "PAYLOAD_TOO_LARGE")


def too_large_stream(send):
    for _ in range(5):
        expect_problem(send("POST", TASKS, JSON, Stream()), 413, "PAYLOAD_TOO_LARGE")


def too_large_without_token(send):
    expect_problem(send("POST", TASKS, TYPE, b" " * 1_000_000), 413, "PAYLOAD_TOO_LARGE")


def without_token(send):
    answer = send("POST", TASKS, TYPE, b" " * 60_000)
    expect_problem(answer, 401, "AUTH_MISSING")
    assert answer.headers["WWW-Authenticate"] == "Bearer", answer
    goes_on(send)


def error_without_body(send):
    missing = f"{TASKS}/{2**53 - 1}"
    expect_problem(send("GET", missing, BEARER), 404, "NOT_FOUND")
    goes_on(send)
    assert send("HEAD", missing, BEARER).status == 404
    goes_on(send)
    expect_problem(send("GET", f"{TASKS}?limit=0", BEARER), 422, "VALIDATION_ERROR")
    goes_on(send)


def without_answer_body(send):
    url = SERVICE + send("POST", TASKS, JSON, MILK).headers["Location"]
    task = send("GET", url, BEARER)
    tag = task.headers["ETag"]
    head = send("HEAD", url, BEARER)
    assert (head.status, head.text, head.headers["ETag"]) == (200, "", tag), head
    assert int(head.headers["Content-Length"]) == len(task.text), head
    unchanged = send("GET", url, BEARER | {"If-None-Match": tag})
    assert (unchanged.status, unchanged.text, unchanged.headers["ETag"]) == (304, "", tag), unchanged
    goes_on(send)
    assert send("GET", url, BEARER).text == task.text
    assert send("DELETE", url, BEARER).status == 204


def encoded_user(send):
    headers = JSON | {"Authorization": f"Bearer {OTHER_TOKEN}"}
    created = send("POST", f"{SERVICE}/api/{quote(OTHER_USER, safe='')}/tasks", headers, MILK)
    assert created.status == 201, created
    url = SERVICE + created.headers["Location"]
    assert json.loads(send("GET", url, headers).text)["user_id"] == OTHER_USER
    assert send("DELETE", url, headers).status == 204


def without_type(send):
    # aiohttp would call it application/octet-stream, which is 415 too.
    for headers in BEARER, BEARER | {"Content-Type": "text/plain"}:
        detail = expect_problem(send("POST", TASKS, headers, MILK), 415, "UNSUPPORTED_MEDIA_TYPE")["detail"]
        assert "Content-Type" in detail and "application/json" in detail, detail


CHECKS = {
    "create, list, change with If-Match, delete": journey,
    "10 MB are 413, 5 of 5": too_large,
    "10 MB in a stream are 413, 5 of 5": too_large_stream,
    "1 MB without a token is 413, as the size is checked first": too_large_without_token,
    "60 KB without a token are 401, and the connection goes on": without_token,
    "the connection goes on after an error without a body": error_without_body,
    "HEAD and 304 have no body": without_answer_body,
    "a user id that has to be percent-encoded": encoded_user,
    "a body without Content-Type is 415 that names it": without_type,
}

for client, send in {"requests": Requests(), "httpx": Httpx(), "aiohttp": Aiohttp()}.items():
    for check, run in CHECKS.items():
        try:
            run(send)
        except BaseException:
            print(f"{client}: {check}: FAILED", flush=True)
            raise
        print(f"{client}: {check}: ok", flush=True)
sys.stdout.flush()
os._exit(0)  # aiohttp would complain that its session is still open.
