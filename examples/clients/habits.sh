#!/usr/bin/env bash
# The habits of curl against the running service. The environment is that of habits.mjs.
set -euo pipefail

tasks=$TASKS_URL/api/$USER_ID/tasks
bearer="Authorization: Bearer $TOKEN" json='Content-Type: application/json'
milk='{"title": "Buy milk"}'
work=$(mktemp -d)
trap finish EXIT

finish() {
    (($? == 0)) || echo "curl: ${what-}: FAILED"
    rm -rf "$work"
}

# send ARGUMENT…: a request of curl; sets `status`, and leaves $work/head and $work/body. Where curl reports an error
# beside the answer, it fails.
send() {
    # A file of its own for each, as curl keeps an old one where there is no body.
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
    [[ $(field Content-Type) == application/problem+json ]] || fail "it is no problem document"
    grep -q "\"error_code\":\"$2\"" "$work/body" || fail "the code is not $2"
}
spaces() { head -c "$1" /dev/zero | tr '\0' ' '; }
# Each byte as %XX.
encode() { printf %s "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g'; }

journey() {
    send -H "$bearer" -H "$json" -d "$milk" "$tasks"
    expect 201
    url=$TASKS_URL$(field Location) tag=$(field ETag)
    send -H "$bearer" "$tasks"
    expect 200
    grep -q "\"id\":${url##*/}," "$work/body" || fail "the list does not have it"
    send -H "$bearer" -H "$json" -H "If-Match: $tag" -X PATCH -d '{"complete": true}' "$url"
    expect 200
    send -H "$bearer" -H "$json" -H "If-Match: $tag" -X PUT -d '{"title": "t", "complete": false}' "$url"
    expect_problem 412 PRECONDITION_FAILED
    send -H "$bearer" -X DELETE "$url"
    expect 204
    [[ ! -s $work/body ]] || fail "204 has a body"
}

too_large() {
    spaces 10000000 >"$work/large"
    for _ in {1..5}; do
        send -H "$bearer" -H "$json" --data-binary "@$work/large" "$tasks"
        expect_problem 413 PAYLOAD_TOO_LARGE
    done
}

# Without `Expect: 100-continue`, by which curl asks first.
too_large_unasked() {
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

# goes_on STATUS ARGUMENT…: a request, its answer, and another request on the same connection.
goes_on() {
    local seen
    seen=$(curl -sS --max-time 60 -o "$work/body" -w '%{http_code} %{num_connects}\n' "${@:2}" \
        --next -sS -o "$work/body" -w '%{http_code} %{num_connects}\n' -H "$bearer" "$tasks" | xargs)
    [[ $seen == "$1 1 200 0" ]] || fail "status and new connections: $seen"
}

without_token() {
    spaces 60000 >"$work/large"
    send -H "$json" --data-binary "@$work/large" "$tasks"
    expect_problem 401 AUTH_MISSING
    [[ $(field WWW-Authenticate) == Bearer ]] || fail "it names no scheme"
    goes_on 401 -H "$json" --data-binary "@$work/large" "$tasks"
}

error_without_body() {
    goes_on 404 -H "$bearer" "$tasks/9007199254740991"
    goes_on 404 -H "$bearer" --head "$tasks/9007199254740991"
    goes_on 422 -H "$bearer" "$tasks?limit=0"
}

without_answer_body() {
    send -H "$bearer" -H "$json" -d "$milk" "$tasks"
    url=$TASKS_URL$(field Location) tag=$(field ETag)
    send -H "$bearer" "$url"
    local length
    length=$(wc -c <"$work/body")
    send -H "$bearer" --head "$url"
    expect 200
    [[ $(field ETag) == "$tag" && $(field Content-Length) == "$length" ]] || fail "HEAD differs from GET"
    send -H "$bearer" -H "If-None-Match: $tag" "$url"
    expect 304
    [[ $(field ETag) == "$tag" && ! -s $work/body ]] || fail "304 has a body, or another tag"
    goes_on 304 -H "$bearer" -H "If-None-Match: $tag" "$url"
    # curl's own habit: the tag in a file.
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
    grep -qF "\"user_id\":\"$OTHER_USER_ID\"" "$work/body" || fail "it is another user's"
    send -H "Authorization: Bearer $OTHER_TOKEN" -X DELETE "$url"
    expect 204
}

without_type() {
    local type
    # By default curl calls it application/x-www-form-urlencoded.
    for type in 'Accept: */*' Content-Type: 'Content-Type: text/plain'; do
        send -H "$bearer" -H "$type" -d "$milk" "$tasks"
        expect_problem 415 UNSUPPORTED_MEDIA_TYPE
        grep -q '"detail":"[^"]*Content-Type[^"]*application/json' "$work/body" || fail "it does not name the header"
    done
}

while IFS=: read -r check what; do
    "$check" </dev/null
    echo "curl: $what: ok"
done <<'CHECKS'
journey:create, list, change with If-Match, delete
too_large:10 MB are 413, 5 of 5
too_large_unasked:10 MB without Expect are 413, 5 of 5
too_large_stream:10 MB in a stream are 413, 5 of 5
too_large_without_token:1 MB without a token is 413, as the size is checked first
without_token:60 KB without a token are 401, and the connection goes on
error_without_body:the connection goes on after an error without a body
without_answer_body:HEAD and 304 have no body
encoded_user:a user id that has to be percent-encoded
without_type:a body without Content-Type is 415 that names it
CHECKS
