import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Checks how Java's HTTP client works with the running service: with its default settings, in which each request
 * offers an upgrade to HTTP/2, and limited to HTTP/1.1. `expectContinue` is not checked, because Java 17 then waits for
 * ever if the response is not "100 Continue" (JDK-8286171). The environment variables are those of habits.mjs.
 */
class Habits {
    interface Check {
        void run() throws Exception;
    }

    static final String SERVICE = System.getenv("TASKS_URL");
    static final String TASKS = SERVICE + "/api/" + encode(System.getenv("USER_ID")) + "/tasks";
    static final String OTHER_TASKS = SERVICE + "/api/" + encode(System.getenv("OTHER_USER_ID")) + "/tasks";
    static final String TOKEN = "Bearer " + System.getenv("TOKEN");
    static final String MILK = "{\"title\": \"Buy milk\"}";

    final HttpClient client;

    Habits(HttpClient client) {
        this.client = client;
    }

    public static void main(String[] arguments) throws Exception {
        var http11 = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        new Habits(HttpClient.newHttpClient()).run("java.net.http");
        new Habits(http11).run("java.net.http (HTTP/1.1)");
    }

    void run(String name) throws Exception {
        var checks = new LinkedHashMap<String, Check>();
        checks.put("create, list, change with If-Match, delete", this::journey);
        checks.put("a body of 10 MB gets 413, five times in a row", this::tooLarge);
        checks.put("a streamed body of 10 MB gets 413, five times in a row", this::tooLargeStream);
        checks.put("1 MB without a token gets 413, because the size is checked before the token",
                this::tooLargeWithoutToken);
        checks.put("60 KB without a token gets 401, and the connection stays open", this::withoutToken);
        checks.put("the connection stays open after an error response to a request without a body",
                this::errorWithoutRequestBody);
        checks.put("responses to HEAD and 304 responses have no body", this::withoutResponseBody);
        checks.put("a user id that must be percent-encoded in the path", this::encodedUser);
        checks.put("a body without a JSON Content-Type gets 415, and the detail names the header",
                this::withoutContentType);
        for (var check : checks.entrySet()) {
            try {
                check.getValue().run();
            } catch (Throwable failure) {
                System.out.println(name + ": " + check.getKey() + ": FAILED");
                throw failure;
            }
            System.out.println(name + ": " + check.getKey() + ": ok");
        }
    }

    void journey() throws Exception {
        var created = send("POST", TASKS, text(MILK), json());
        expect(201, created);
        var url = SERVICE + field(created, "Location");
        expect(send("GET", TASKS, null, bearer()).body().contains("\"id\":" + url.replaceFirst(".*/", "") + ","));
        var ifMatch = with(json(), "If-Match", field(created, "ETag"));
        var changed = send("PATCH", url, text("{\"complete\": true}"), ifMatch);
        expect(200, changed);
        expect(changed.body().contains("\"complete\":true"));
        var stale = send("PUT", url, text("{\"title\": \"t\", \"complete\": false}"), ifMatch);
        expectProblem(412, "PRECONDITION_FAILED", stale);
        var deleted = send("DELETE", url, null, bearer());
        expect(204, deleted);
        expect(deleted.body().isEmpty());
    }

    void tooLarge() throws Exception {
        for (int round = 0; round < 5; round++)
            expectProblem(413, "PAYLOAD_TOO_LARGE", send("POST", TASKS, spaces(10_000_000), json()));
    }

    void tooLargeStream() throws Exception {
        for (int round = 0; round < 5; round++) {
            var stream = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(new byte[10_000_000]));
            expectProblem(413, "PAYLOAD_TOO_LARGE", send("POST", TASKS, stream, json()));
        }
    }

    void tooLargeWithoutToken() throws Exception {
        var type = Map.of("Content-Type", "application/json");
        expectProblem(413, "PAYLOAD_TOO_LARGE", send("POST", TASKS, spaces(1_000_000), type));
    }

    void withoutToken() throws Exception {
        var response = send("POST", TASKS, spaces(60_000), Map.of("Content-Type", "application/json"));
        expectProblem(401, "AUTH_MISSING", response);
        expect(field(response, "WWW-Authenticate").equals("Bearer"));
        expectConnectionsKept();
    }

    void errorWithoutRequestBody() throws Exception {
        var missing = TASKS + "/9007199254740991";
        expectProblem(404, "NOT_FOUND", send("GET", missing, null, bearer()));
        expectConnectionsKept();
        expect(404, send("HEAD", missing, null, bearer()));
        expectConnectionsKept();
        expectProblem(422, "VALIDATION_ERROR", send("GET", TASKS + "?limit=0", null, bearer()));
        expectConnectionsKept();
    }

    void withoutResponseBody() throws Exception {
        var url = SERVICE + field(send("POST", TASKS, text(MILK), json()), "Location");
        var task = send("GET", url, null, bearer());
        var tag = field(task, "ETag");
        var head = send("HEAD", url, null, bearer());
        expect(200, head);
        expect(head.body().isEmpty() && field(head, "ETag").equals(tag));
        expect(field(head, "Content-Length").equals(String.valueOf(task.body().getBytes(UTF_8).length)));
        var unchanged = send("GET", url, null, with(bearer(), "If-None-Match", tag));
        expect(304, unchanged);
        expect(unchanged.body().isEmpty() && field(unchanged, "ETag").equals(tag));
        expectConnectionsKept();
        expect(send("GET", url, null, bearer()).body().equals(task.body()));
        expect(204, send("DELETE", url, null, bearer()));
    }

    void encodedUser() throws Exception {
        var headers = with(json(), "Authorization", "Bearer " + System.getenv("OTHER_TOKEN"));
        var created = send("POST", OTHER_TASKS, text(MILK), headers);
        expect(201, created);
        var url = SERVICE + field(created, "Location");
        var user = "\"user_id\":\"" + System.getenv("OTHER_USER_ID") + "\"";
        expect(send("GET", url, null, headers).body().contains(user));
        expect(204, send("DELETE", url, null, headers));
    }

    void withoutContentType() throws Exception {
        for (var headers : Set.of(bearer(), with(bearer(), "Content-Type", "text/plain"))) {
            var response = send("POST", TASKS, text(MILK), headers);
            expectProblem(415, "UNSUPPORTED_MEDIA_TYPE", response);
            expect(response.body().matches(".*\"detail\":\"[^\"]*Content-Type[^\"]*application/json.*"));
        }
    }

    HttpResponse<String> send(String method, String url, BodyPublisher body, Map<String, String> headers)
            throws Exception {
        var publisher = body == null ? BodyPublishers.noBody() : body;
        var request = HttpRequest.newBuilder(URI.create(url)).method(method, publisher).timeout(Duration.ofSeconds(60));
        headers.forEach(request::header);
        return client.send(request.build(), BodyHandlers.ofString());
    }

    /** Checks that the service keeps connections open: there is at least one, and all outlive three more requests. */
    void expectConnectionsKept() throws Exception {
        var before = connections();
        expect(!before.isEmpty());
        for (int count = 0; count < 3; count++) expect(200, send("GET", TASKS, null, bearer()));
        expect(connections().containsAll(before));
    }

    /** The local addresses of the established connections to the service. */
    static Set<String> connections() throws Exception {
        var port = String.format(":%04X", URI.create(SERVICE).getPort());
        var addresses = new HashSet<String>();
        for (var file : Set.of(Path.of("/proc/net/tcp"), Path.of("/proc/net/tcp6"))) {
            // /proc/net/tcp6 is missing on a machine without IPv6.
            for (var line : Files.exists(file) ? Files.readAllLines(file) : List.<String>of()) {
                var row = line.trim().split("\\s+");
                if (row[2].endsWith(port) && row[3].equals("01")) addresses.add(row[1]);
            }
        }
        return addresses;
    }

    static void expect(int status, HttpResponse<String> response) {
        if (response.statusCode() != status)
            throw new AssertionError("the status is not " + status + ": " + response + " " + response.body());
    }

    static void expect(boolean holds) {
        if (!holds) throw new AssertionError("the condition at the caller's line is false");
    }

    static void expectProblem(int status, String code, HttpResponse<String> response) {
        expect(status, response);
        expect(field(response, "Content-Type").equals("application/problem+json"));
        expect(response.body().contains("\"error_code\":\"" + code + "\""));
    }

    static String field(HttpResponse<String> response, String name) {
        return response.headers().firstValue(name).orElseThrow();
    }

    static Map<String, String> bearer() {
        return Map.of("Authorization", TOKEN);
    }

    static Map<String, String> json() {
        return with(bearer(), "Content-Type", "application/json");
    }

    static Map<String, String> with(Map<String, String> headers, String name, String value) {
        var all = new LinkedHashMap<>(headers);
        all.put(name, value);
        return all;
    }

    static BodyPublisher text(String text) {
        return BodyPublishers.ofString(text);
    }

    static BodyPublisher spaces(int count) {
        return text(" ".repeat(count));
    }

    /** Java has an encoder only for HTML forms, which writes a space as a plus sign. A path needs %20. */
    static String encode(String segment) {
        return URLEncoder.encode(segment, UTF_8).replace("+", "%20");
    }
}
