"""Compares the gate with a third parser, h11, for each result that the fuzz test of src/gate/read.rs has written.
h11 must find in the client's bytes the same request, of the same length, as the gate; and the request as the gate
understood it, written down again, must be exactly one request for h11."""

import struct
import sys
import time

import h11

FORWARDED = {
    b"authorization",
    b"accept-encoding",
    b"content-type",
    b"content-encoding",
    b"origin",
    b"if-match",
    b"if-none-match",
    b"idempotency-key",
    b"x-request-id",
    b"traceparent",
    b"access-control-request-method",
}
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}
PASSED_ON, INCOMPLETE = 200, 0


def read(data):
    """Method, target, fields, body, and the remaining bytes. None if h11 refuses the request."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    body = b""
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return None
    except h11.RemoteProtocolError:
        return None
    fields = [(name, value) for name, value in request.headers]
    return request.method, request.target, fields, body, len(server.trailing_data[0])


def origin_form(target):
    """An absolute-form target without scheme and authority (RFC 9112 section 3.2.1)."""
    lower = target.lower()
    for scheme in (b"http://", b"https://"):
        if lower.startswith(scheme):
            rest = target[len(scheme) :]
            ends = [at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0]
            path = rest[min(ends) :] if ends else b""
            return path if path.startswith(b"/") else b"/" + path
    return target


def difference(sent, taken, message):
    """What h11 understands differently. None if it agrees."""
    # h11 requires a Host in every request. The gate drops it, because the service does not read it.
    inner = read(message.replace(b"\r\n", b"\r\nHost: gate\r\n", 1))
    if inner is None:
        return "what was passed on is refused"
    outer = read(sent[2:] if sent.startswith(b"\r\n") else sent)
    if outer is None:
        return "what was sent is refused"
    method, target, fields, body, left = inner
    if left:
        return "more than one request was passed on"
    sent_method = outer[0] if outer[0] in METHODS else b"OTHER"
    if (method, target, body) != (sent_method, origin_form(outer[1]), outer[3]):
        return "method, target or body differ"
    if len(sent) - taken != outer[4]:
        return "the next request begins elsewhere"
    harmless = bytes(range(128)) + b"\x7f" * 128
    wanted = [(name, value.translate(harmless)) for name, value in outer[2] if name in FORWARDED]
    seen = [field for field in fields if field[0] in FORWARDED]
    if seen != wanted:
        return "fields differ"
    known = FORWARDED | {b"host", b"content-length"}
    if any(name not in known for name, _ in fields):
        return "a field too many was passed on"
    if [value for name, value in fields if name == b"content-length"] != [b"%d" % len(body)]:
        return "the length is not said once"
    return None


def main(results):
    counts = {"passed on": 0, "refused": 0, "incomplete": 0, "refused by the gate alone": 0}
    begin = time.time()
    while numbers := results.read(16):
        status, taken, sent_length, message_length = struct.unpack("<4I", numbers)
        sent, message = results.read(sent_length), results.read(message_length)
        if status == PASSED_ON:
            counts["passed on"] += 1
            found = difference(sent, taken, message)
            if found:
                sys.exit(f"{found}:\n{sent!r}\n{message!r}")
        elif status == INCOMPLETE:
            counts["incomplete"] += 1
        else:
            counts["refused"] += 1
            counts["refused by the gate alone"] += read(sent) is not None
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"h11 {h11.__version__}: {text}, {time.time() - begin:.1f} s, no difference")


main(sys.stdin.buffer)
