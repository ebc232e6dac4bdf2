"""Tells Schemathesis the rules of the service that OpenAPI cannot express, and works around two of its limits."""

import re
import uuid

import schemathesis


@schemathesis.hook
def filter_case(context, case):
    # Leaves out the cases with an invalid user_id. Schemathesis replaces it by the user_id in schemathesis.toml, and
    # then reports that an invalid request was accepted.
    data = case.meta.phase.data if case.meta else None
    return getattr(data, "parameter", None) != "user_id"


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers or {}
    query = case.query or {}
    if case.meta and case.meta.generation.mode.is_positive:
        # Makes the request valid. A generated cursor never is, because only the service makes valid ones, and `after`
        # is not allowed together with `offset` or with another order than by id.
        query.pop("cursor", None)
        is_by_id = query.get("order", "id") in ("id", "-id", "asc", "desc")
        if "offset" in query or not is_by_id:
            query.pop("after", None)
    # Schemathesis follows links that it has inferred, and puts a numeric id into X-Request-Id. Its HTTP client accepts
    # only text.
    for name, value in list(headers.items()):
        headers[name] = str(value)
    # The service refuses a key that came with another body before. So each valid key is replaced by a new one.
    if re.fullmatch("[!-~]{1,255}", headers.get("Idempotency-Key", "")):
        headers["Idempotency-Key"] = str(uuid.uuid4())
