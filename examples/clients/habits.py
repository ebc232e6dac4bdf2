"""Checks how Python's HTTP clients work with the running service: requests, httpx and aiohttp, each with its default
settings. The environment variables are those of habits.mjs."""

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
JSON_TYPE = {"Content-Type": "application/json"}
JSON = BEARER | JSON_TYPE
MILK = b'{"title": "Buy milk"}'

Response = namedtuple("Response", "status headers text")


class Stream:
    """A body of 10 MB that is sent without Content-Length."""

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
        return Response(response.status_code, response.headers, response.text)


class Httpx:
    def __init__(self):
        self.client = httpx.Client()

    def __call__(self, method, url, headers, body=None):
        body = iter(body) if isinstance(body, Stream) else body
        response = self.client.request(method, url, headers=headers, content=body)
        return Response(response.status_code, response.headers, response.text)


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
            return Response(response.status, response.headers, await response.text())


def expect_problem(response, status, code):
    assert response.status == status, response
    assert response.headers["Content-Type"] == "application/problem+json", response
    problem = json.loads(response.text)
    assert (problem["status"], problem["error_code"]) == (status, code), response
    return problem


def connections():
    """The local addresses of the established connections to the service."""
    port = f":{urlsplit(SERVICE).port:04X}"
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file]
    return {row[1] for row in rows if row[2].endswith(port) and row[3] == "01"}


def expect_connections_kept(send):
    """Checks that the service keeps connections open: there is at least one, and all outlive three more requests."""
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
    current = expect_problem(stale, 412, "PRECONDITION_FAILED")["current"]
    assert current["etag"] == changed.headers["ETag"], current
    deleted = send("DELETE", url, BEARER)
    assert (deleted.status, deleted.text) == (204, ""), deleted


def too_large(send):
    for _ in range(5):
        expect_problem(send("POST", TASKS, JSON, b" " * 10_000_000), 413, "PAYLOAD_TOO_LARGE")


def too_large_stream(send):
    for _ in range(5):
        expect_problem(send("POST", TASKS, JSON, Stream()), 413, "PAYLOAD_TOO_LARGE")


def too_large_without_token(send):
    expect_problem(send("POST", TASKS, JSON_TYPE, b" " * 1_000_000), 413, "PAYLOAD_TOO_LARGE")


def without_token(send):
    response = send("POST", TASKS, JSON_TYPE, b" " * 60_000)
    expect_problem(response, 401, "AUTH_MISSING")
    assert response.headers["WWW-Authenticate"] == "Bearer", response
    expect_connections_kept(send)


def error_without_request_body(send):
    missing = f"{TASKS}/{2**53 - 1}"
    expect_problem(send("GET", missing, BEARER), 404, "NOT_FOUND")
    expect_connections_kept(send)
    assert send("HEAD", missing, BEARER).status == 404
    expect_connections_kept(send)
    expect_problem(send("GET", f"{TASKS}?limit=0", BEARER), 422, "VALIDATION_ERROR")
    expect_connections_kept(send)


def without_response_body(send):
    url = SERVICE + send("POST", TASKS, JSON, MILK).headers["Location"]
    task = send("GET", url, BEARER)
    tag = task.headers["ETag"]
    head = send("HEAD", url, BEARER)
    assert (head.status, head.text, head.headers["ETag"]) == (200, "", tag), head
    assert int(head.headers["Content-Length"]) == len(task.text), head
    unchanged = send("GET", url, BEARER | {"If-None-Match": tag})
    assert (unchanged.status, unchanged.text, unchanged.headers["ETag"]) == (304, "", tag), unchanged
    expect_connections_kept(send)
    assert send("GET", url, BEARER).text == task.text
    assert send("DELETE", url, BEARER).status == 204


def encoded_user(send):
    headers = JSON | {"Authorization": f"Bearer {OTHER_TOKEN}"}
    created = send("POST", f"{SERVICE}/api/{quote(OTHER_USER, safe='')}/tasks", headers, MILK)
    assert created.status == 201, created
    url = SERVICE + created.headers["Location"]
    assert json.loads(send("GET", url, headers).text)["user_id"] == OTHER_USER
    assert send("DELETE", url, headers).status == 204


def without_content_type(send):
    # aiohttp adds application/octet-stream if there is no Content-Type. That gets 415 too.
    for headers in BEARER, BEARER | {"Content-Type": "text/plain"}:
        detail = expect_problem(send("POST", TASKS, headers, MILK), 415, "UNSUPPORTED_MEDIA_TYPE")["detail"]
        assert "Content-Type" in detail and "application/json" in detail, detail


CHECKS = {
    "create, list, change with If-Match, delete": journey,
    "a body of 10 MB gets 413, five times in a row": too_large,
    "a streamed body of 10 MB gets 413, five times in a row": too_large_stream,
    "1 MB without a token gets 413, because the size is checked before the token": too_large_without_token,
    "60 KB without a token gets 401, and the connection stays open": without_token,
    "the connection stays open after an error response to a request without a body": error_without_request_body,
    "responses to HEAD and 304 responses have no body": without_response_body,
    "a user id that must be percent-encoded in the path": encoded_user,
    "a body without a JSON Content-Type gets 415, and the detail names the header": without_content_type,
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
os._exit(0)  # without cleaning up, so that aiohttp does not warn about its open session
