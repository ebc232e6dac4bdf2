#!/usr/bin/env bash
# Checks how curl works with the running service. The environment variables are those of habits.mjs.
set -euo pipefail

tasks=$TASKS_URL/api/$USER_ID/tasks
bearer="Authorization: Bearer $TOKEN" json='Content-Type: application/json'
milk='{"title": "Buy milk"}'
work=$(mktemp -d)
trap finish EXIT

finish() {
    (($? == 0)) || echo "curl: ${description-}: FAILED"
    rm -rf "$work"
}

# send ARGUMENT…: runs curl with these arguments. Sets `status`, and writes the response to $work/head and $work/body.
# If curl reports an error, the script ends, even if curl has received a response.
send() {
    # If the response has no body, curl does not touch the file, which would then contain the previous body.
    rm -f "$work/body"
    status=$(curl -sS --max-time 60 -D "$work/head" -o "$work/body" -w '%{http_code}' "$@")
    touch "$work/body"
}
field() { sed -n "s/^$1: *//Ip" "$work/head" | tr -d '\r'; }
expect() { [[ $status == "$1" ]] || fail "the status is $status, not $1"; }
fail() {
    cat "$work/head" "$work/body" >&2
    echo "$*" >&2
    exit 1
}
expect_problem() {
    expect "$1"
    [[ $(field Content-Type) == application/problem+json ]] || fail "the response is not a problem document"
    grep -q "\"error_code\":\"$2\"" "$work/body" || fail "the error_code is not $2"
}
spaces() { head -c "$1" /dev/zero | tr '\0' ' '; }
# Percent-encodes every byte.
encode() { printf %s "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g'; }

journey() {
    send -H "$bearer" -H "$json" -d "$milk" "$tasks"
    expect 201
    url=$TASKS_URL$(field Location) tag=$(field ETag)
    send -H "$bearer" "$tasks"
    expect 200
    grep -q "\"id\":${url##*/}," "$work/body" || fail "the list does not contain the new task"
    send -H "$bearer" -H "$json" -H "If-Match: $tag" -X PATCH -d '{"complete": true}' "$url"
    expect 200
    send -H "$bearer" -H "$json" -H "If-Match: $tag" -X PUT -d '{"title": "t", "complete": false}' "$url"
    expect_problem 412 PRECONDITION_FAILED
    send -H "$bearer" -X DELETE "$url"
    expect 204
    [[ ! -s $work/body ]] || fail "the 204 has a body"
}

too_large() {
    spaces 10000000 >"$work/large"
    for _ in {1..5}; do
        send -H "$bearer" -H "$json" --data-binary "@$work/large" "$tasks"
        expect_problem 413 PAYLOAD_TOO_LARGE
    done
}

# By default, curl sends `Expect: 100-continue` and waits before it sends a large body. `-H Expect:` turns this off.
too_large_without_expect() {
    for _ in {1..5}; do
        send -H "$bearer" -H "$json" -H Expect: --data-binary "@$work/large" "$tasks"
        expect_problem 413 PAYLOAD_TOO_LARGE
    done
}

too_large_stream() {
    for _ in {1..5}; do
        send -H "$bearer" -H "$json" -X POST -T - "$tasks" < <(spaces 10000000 2>/dev/null)
        expect_problem 413 PAYLOAD_TOO_LARGE
    done
}

too_large_without_token() {
    spaces 1000000 >"$work/large"
    send -H "$json" -H Expect: --data-binary "@$work/large" "$tasks"
    expect_problem 413 PAYLOAD_TOO_LARGE
}

# expect_reuse STATUS ARGUMENT…: sends a request with these arguments, which must get STATUS, and then a GET of the
# list, which must get 200 on the same connection.
expect_reuse() {
    local results
    results=$(curl -sS --max-time 60 -o "$work/body" -w '%{http_code} %{num_connects}\n' "${@:2}" \
        --next -sS -o "$work/body" -w '%{http_code} %{num_connects}\n' -H "$bearer" "$tasks" | xargs)
    [[ $results == "$1 1 200 0" ]] || fail "status and number of new connections of the two requests: $results; expected: $1 1 200 0"
}

without_token() {
    spaces 60000 >"$work/large"
    send -H "$json" --data-binary "@$work/large" "$tasks"
    expect_problem 401 AUTH_MISSING
    [[ $(field WWW-Authenticate) == Bearer ]] || fail "WWW-Authenticate is not Bearer"
    expect_reuse 401 -H "$json" --data-binary "@$work/large" "$tasks"
}

error_without_request_body() {
    expect_reuse 404 -H "$bearer" "$tasks/9007199254740991"
    expect_reuse 404 -H "$bearer" --head "$tasks/9007199254740991"
    expect_reuse 422 -H "$bearer" "$tasks?limit=0"
}

without_response_body() {
    send -H "$bearer" -H "$json" -d "$milk" "$tasks"
    url=$TASKS_URL$(field Location) tag=$(field ETag)
    send -H "$bearer" "$url"
    local length
    length=$(wc -c <"$work/body")
    send -H "$bearer" --head "$url"
    expect 200
    [[ $(field ETag) == "$tag" && $(field Content-Length) == "$length" ]] ||
        fail "HEAD has another ETag or Content-Length than GET"
    send -H "$bearer" -H "If-None-Match: $tag" "$url"
    expect 304
    [[ $(field ETag) == "$tag" && ! -s $work/body ]] || fail "the 304 has a body or another ETag"
    expect_reuse 304 -H "$bearer" -H "If-None-Match: $tag" "$url"
    # curl can also keep the ETag in a file.
    send -H "$bearer" --etag-save "$work/tag" "$url"
    send -H "$bearer" --etag-compare "$work/tag" "$url"
    expect 304
    send -H "$bearer" -X DELETE "$url"
    expect 204
}

encoded_user() {
    send -H "Authorization: Bearer $OTHER_TOKEN" -H "$json" -d "$milk" \
        "$TASKS_URL/api/$(encode "$OTHER_USER_ID")/tasks"
    expect 201
    url=$TASKS_URL$(field Location)
    send -H "Authorization: Bearer $OTHER_TOKEN" "$url"
    grep -qF "\"user_id\":\"$OTHER_USER_ID\"" "$work/body" || fail "the user_id of the task is not $OTHER_USER_ID"
    send -H "Authorization: Bearer $OTHER_TOKEN" -X DELETE "$url"
    expect 204
}

without_content_type() {
    local type
    # By default, curl sends application/x-www-form-urlencoded with -d. `-H Content-Type:` removes the header.
    for type in 'Accept: */*' Content-Type: 'Content-Type: text/plain'; do
        send -H "$bearer" -H "$type" -d "$milk" "$tasks"
        expect_problem 415 UNSUPPORTED_MEDIA_TYPE
        grep -q '"detail":"[^"]*Content-Type[^"]*application/json' "$work/body" ||
            fail "the detail does not name Content-Type and application/json"
    done
}

while IFS=: read -r check description; do
    "$check" </dev/null
    echo "curl: $description: ok"
done <<'CHECKS'
journey:create, list, change with If-Match, delete
too_large:a body of 10 MB gets 413, five times in a row
too_large_without_expect:a body of 10 MB without Expect gets 413, five times in a row
too_large_stream:a streamed body of 10 MB gets 413, five times in a row
too_large_without_token:1 MB without a token gets 413, because the size is checked before the token
without_token:60 KB without a token gets 401, and the connection stays open
error_without_request_body:the connection stays open after an error response to a request without a body
without_response_body:responses to HEAD and 304 responses have no body
encoded_user:a user id that must be percent-encoded in the path
without_content_type:a body without a JSON Content-Type gets 415, and the detail names the header
CHECKS
