// Checks how Node's HTTP clients work with the running service: fetch, node:http, axios and got, with their default
// settings as far as the checks allow. Environment variables: TASKS_URL; USER_ID and its TOKEN; OTHER_USER_ID, which
// must be percent-encoded in a path, and its OTHER_TOKEN.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import http from "node:http";
import { Readable } from "node:stream";
import axios from "axios";
import got from "got";

const { TASKS_URL: service, USER_ID: user, TOKEN: token } = process.env;
const { OTHER_USER_ID: otherUser, OTHER_TOKEN: otherToken } = process.env;
const tasks = `${service}/api/${encodeURIComponent(user)}/tasks`;
const bearer = { Authorization: `Bearer ${token}` };
const json = { ...bearer, "Content-Type": "application/json" };
const megabytes = (count) => Buffer.alloc(count * 1e6, " ");
const agent = new http.Agent({ keepAlive: true });

// A body of 10 MB that is sent without Content-Length.
function* streamedBody() {
  for (let count = 0; count < 160; count++) yield Buffer.alloc(62500, " ");
}
const isStream = (body) => body === streamedBody;

// Each function sends a request, and returns the status, the header fields and the body (as text) of the response.
const clients = {
  async fetch(method, url, headers, body) {
    const options = isStream(body) ? { body: Readable.toWeb(Readable.from(body())), duplex: "half" } : { body };
    const response = await fetch(url, { method, headers, ...options });
    const text = await response.text();
    return { status: response.status, headers: Object.fromEntries(response.headers), text };
  },
  "node:http": (method, url, headers, body) =>
    new Promise((resolve, reject) => {
      const request = http.request(url, { method, headers, agent }, (response) => {
        const chunks = [];
        response.on("data", (bytes) => chunks.push(bytes)).on("error", reject);
        response.on("end", () =>
          resolve({ status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString() }));
      });
      request.on("error", reject);
      if (isStream(body)) Readable.from(body()).pipe(request);
      else request.end(body);
    }),
  async axios(method, url, headers, body) {
    const data = isStream(body) ? Readable.from(body()) : body;
    const settings = { responseType: "text", transformResponse: [], validateStatus: () => true, maxBodyLength: Infinity };
    const response = await axios({ method, url, headers, data, ...settings });
    return { status: response.status, headers: response.headers, text: response.data };
  },
  async got(method, url, headers, body) {
    const options = { method, headers, body: isStream(body) ? Readable.from(body()) : body };
    const response = await got(url, { ...options, throwHttpErrors: false });
    return { status: response.statusCode, headers: response.headers, text: response.body };
  },
};

function expectProblem(response, status, code) {
  assert.equal(response.status, status, response.text);
  assert.equal(response.headers["content-type"], "application/problem+json");
  const problem = JSON.parse(response.text);
  assert.deepEqual([problem.status, problem.error_code], [status, code]);
  return problem;
}

// The local addresses of the established connections to the service.
function connections() {
  const port = Number(new URL(service).port).toString(16).toUpperCase().padStart(4, "0");
  const rows = readFileSync("/proc/net/tcp", "utf8").trim().split("\n").map((row) => row.trim().split(/\s+/));
  const established = rows.filter(([, , remote, state]) => remote.endsWith(`:${port}`) && state === "01");
  return established.map(([, local]) => local).sort();
}

// Checks that the service keeps connections open: there is at least one, and all outlive three more requests.
async function expectConnectionsKept(send) {
  const before = connections();
  assert.notEqual(before.length, 0);
  for (let count = 0; count < 3; count++) assert.equal((await send("GET", tasks, bearer)).status, 200);
  const after = connections();
  assert(before.every((address) => after.includes(address)), `connections before: ${before}; after: ${after}`);
}

const checks = {
  async "create, list, change with If-Match, delete"(send) {
    const created = await send("POST", tasks, json, JSON.stringify({ title: "Buy milk" }));
    assert.equal(created.status, 201, created.text);
    const url = service + created.headers.location;
    const list = JSON.parse((await send("GET", tasks, bearer)).text);
    assert(list.tasks.some(({ id }) => id === JSON.parse(created.text).id));
    const change = () => send("PATCH", url, { ...json, "If-Match": created.headers.etag }, '{"complete": true}');
    const changed = await change();
    assert.deepEqual([changed.status, JSON.parse(changed.text).complete], [200, true]);
    const stale = await send("PUT", url, { ...json, "If-Match": created.headers.etag }, '{"title": "t", "complete": false}');
    assert.equal(expectProblem(stale, 412, "PRECONDITION_FAILED").current.etag, changed.headers.etag);
    const deleted = await send("DELETE", url, bearer);
    assert.deepEqual([deleted.status, deleted.text], [204, ""]);
  },
  async "a body of 10 MB gets 413, five times in a row"(send) {
    for (let round = 0; round < 5; round++)
      expectProblem(await send("POST", tasks, json, megabytes(10)), 413, "PAYLOAD_TOO_LARGE");
  },
  async "a streamed body of 10 MB gets 413, five times in a row"(send) {
    for (let round = 0; round < 5; round++)
      expectProblem(await send("POST", tasks, json, streamedBody), 413, "PAYLOAD_TOO_LARGE");
  },
  async "1 MB without a token gets 413, because the size is checked before the token"(send) {
    expectProblem(await send("POST", tasks, { "Content-Type": "application/json" }, megabytes(1)), 413, "PAYLOAD_TOO_LARGE");
  },
  async "60 KB without a token gets 401, and the connection stays open"(send) {
    const response = await send("POST", tasks, { "Content-Type": "application/json" }, megabytes(0.06));
    expectProblem(response, 401, "AUTH_MISSING");
    assert.equal(response.headers["www-authenticate"], "Bearer");
    await expectConnectionsKept(send);
  },
  async "the connection stays open after an error response to a request without a body"(send) {
    expectProblem(await send("GET", `${tasks}/${Number.MAX_SAFE_INTEGER}`, bearer), 404, "NOT_FOUND");
    await expectConnectionsKept(send);
    assert.equal((await send("HEAD", `${tasks}/${Number.MAX_SAFE_INTEGER}`, bearer)).status, 404);
    await expectConnectionsKept(send);
    expectProblem(await send("GET", `${tasks}?limit=0`, bearer), 422, "VALIDATION_ERROR");
    await expectConnectionsKept(send);
  },
  async "responses to HEAD and 304 responses have no body"(send) {
    const created = await send("POST", tasks, json, '{"title": "Buy milk"}');
    const url = service + created.headers.location;
    const task = await send("GET", url, bearer);
    const { etag } = task.headers;
    const head = await send("HEAD", url, bearer);
    assert.deepEqual([head.status, head.text, head.headers.etag], [200, "", etag]);
    assert.equal(Number(head.headers["content-length"]), task.text.length);
    const unchanged = await send("GET", url, { ...bearer, "If-None-Match": etag });
    assert.deepEqual([unchanged.status, unchanged.text, unchanged.headers.etag], [304, "", etag]);
    await expectConnectionsKept(send);
    assert.equal((await send("GET", url, bearer)).text, task.text);
    assert.equal((await send("DELETE", url, bearer)).status, 204);
  },
  async "a user id that must be percent-encoded in the path"(send) {
    const headers = { ...json, Authorization: `Bearer ${otherToken}` };
    const url = `${service}/api/${encodeURIComponent(otherUser)}/tasks`;
    const created = await send("POST", url, headers, '{"title": "Buy milk"}');
    assert.equal(created.status, 201, created.text);
    const task = await send("GET", service + created.headers.location, headers);
    assert.equal(JSON.parse(task.text).user_id, otherUser);
    assert.equal((await send("DELETE", service + created.headers.location, headers)).status, 204);
  },
  async "a body without a JSON Content-Type gets 415, and the detail names the header"(send) {
    // axios adds application/x-www-form-urlencoded if there is no Content-Type. That gets 415 too.
    for (const headers of [bearer, { ...bearer, "Content-Type": "text/plain" }]) {
      const response = await send("POST", tasks, headers, Buffer.from('{"title": "Buy milk"}'));
      assert.match(expectProblem(response, 415, "UNSUPPORTED_MEDIA_TYPE").detail, /Content-Type.*application\/json/);
    }
  },
};

for (const [client, send] of Object.entries(clients)) {
  for (const [check, run] of Object.entries(checks)) {
    try {
      await run(send);
    } catch (error) {
      console.log(`${client}: ${check}: FAILED`);
      throw error;
    }
    console.log(`${client}: ${check}: ok`);
  }
}
process.exit(); // otherwise Node would wait until its idle connections are closed
