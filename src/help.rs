//! The texts of `--help`, for all commands and for each one.

pub const ALL: &str = "\
tinytasks: a to-do task REST service

usage: tinytasks [--config FILE] COMMAND, where the commands are

  tinytasks [serve]                     serve until SIGTERM or SIGINT; also without a command
  tinytasks config                      print the values of all variables and where they come from
  tinytasks check                       examine configuration, address, certificate, database
  tinytasks healthcheck                 ask the running service whether it is healthy
  tinytasks migrate                     apply schema.sql to the database
  tinytasks token --user ID [--ttl 1h]  print a token for trying out the API
  tinytasks token --explain             read a token and say whether it is accepted, or why not
  tinytasks export --user ID            print all tasks of a user, one line of JSON each
  tinytasks purge --user ID [--dry-run] delete all tasks of a user, or count them
  tinytasks COMMAND --help              print more about one command
  tinytasks --help | --version

Configuration comes from environment variables, and then from FILE; without --config, from .env in
the working directory. Required are DATABASE_URL (postgres://user:password@host/database) and keys
for tokens: JWT_SECRET_KEY or BETTER_AUTH_SECRET (at least 32 random bytes), or JWT_JWKS_FILE
together with JWT_ISSUER and JWT_AUDIENCE. README.md lists all variables.

Exit codes: 0 done, 1 failed, 2 invalid configuration or command line.
";

/// The help text of a command. None if there is no such command.
pub fn of(command: &str) -> Option<&'static str> {
    match command {
        "serve" => Some(SERVE),
        "config" => Some(CONFIG),
        "check" => Some(CHECK),
        "healthcheck" => Some(HEALTHCHECK),
        "migrate" => Some(MIGRATE),
        "token" => Some(TOKEN),
        "export" => Some(EXPORT),
        "purge" => Some(PURGE),
        _ => None,
    }
}

const SERVE: &str = "\
usage: tinytasks [--config FILE] [serve]

Serves until SIGTERM or SIGINT. Then it accepts no more connections, takes at most 10 seconds to
finish the requests that have begun, and exits with code 0. SIGHUP makes it read the files with
secrets and the JWKS again; if a new file is invalid, the old values stay in use.

HOST and PORT say where it listens; HOST may be an address, a name, or unix:/path. A socket that
systemd passes is used instead. ADMIN_ADDR serves /metrics, /health/live and /health/ready at a
separate address. The log goes to standard error.
";

const CONFIG: &str = "\
usage: tinytasks [--config FILE] config

Prints every variable with the value that is used and where it comes from: the environment, a file
or the default. Secrets are hidden. Invalid variables are named on standard error; the exit code is
then 2.
";

const CHECK: &str = "\
usage: tinytasks [--config FILE] check

Examines everything that serve needs, without changing anything: configuration, certificate,
address and port, limit of open files, database, schema, rights, and old rows that break the rules
of the table. Prints warnings, and what is in order. Exit code 0 if nothing is wrong, 1 if there is
a problem, 2 if the configuration is invalid; the problems are on standard error.
";

const HEALTHCHECK: &str = "\
usage: tinytasks [--config FILE] healthcheck

Asks the running service for /health at HOST and PORT of the same configuration. Exit code 0 if it
is healthy, 1 if it is not or does not answer within 5 seconds. Meant for the health check of a
container engine, so that the image needs no curl.
";

const MIGRATE: &str = "\
usage: tinytasks [--config FILE] migrate

Applies schema.sql to the database: makes the table, or upgrades an older one in place. Needs only
DATABASE_URL, with a role that owns the table. It may be repeated without harm.
";

const TOKEN: &str = "\
usage: tinytasks [--config FILE] token --user ID [--ttl 1h]
       tinytasks [--config FILE] token --explain

The first form prints a token of that user, signed with JWT_SECRET_KEY or BETTER_AUTH_SECRET. --ttl
says how long the token is valid: a number followed by s, m, h or d. The default is one hour.

The second form reads a token from standard input and says whether the service accepts it: if so,
for which user and until when; if not, exactly why. The name of a header, the scheme Bearer,
quotation marks and line breaks around the token are removed first. Exit code 0 if the token is
accepted, else 1.
";

const EXPORT: &str = "\
usage: tinytasks [--config FILE] export --user ID

Prints all tasks of the user in the order of their ids, each as one line of JSON. Needs only
DATABASE_URL.
";

const PURGE: &str = "\
usage: tinytasks [--config FILE] purge --user ID [--dry-run]

Deletes all tasks of the user permanently and prints how many there were; with --dry-run, only
counts them. Needs only DATABASE_URL.
";
