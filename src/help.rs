//! The texts of `--help`, for all commands and for each one.

pub const ALL: &str = "\
tinytasks: a to-do task REST service

usage: tinytasks [--config FILE] COMMAND, where the commands are

  tinytasks [serve]                     serve until SIGTERM or SIGINT; also without a command
  tinytasks config                      print what is in force and where it came from
  tinytasks check                       examine configuration, address, certificate, database
  tinytasks healthcheck                 ask the running service whether it is healthy
  tinytasks migrate                     apply schema.sql to the database
  tinytasks token --user ID [--ttl 1h]  print a token for trying things out
  tinytasks token --explain             read a token: is it accepted, and if not, why not
  tinytasks export --user ID            print all tasks of a user, one line of JSON each
  tinytasks purge --user ID [--dry-run] delete all tasks of a user, or count them
  tinytasks COMMAND --help              say more about one command
  tinytasks --help | --version

Configuration comes from environment variables, then from FILE, or without --config from .env in
the working directory. Required are DATABASE_URL (postgres://user:password@host/database), and
JWT_SECRET_KEY or BETTER_AUTH_SECRET (at least 32 random bytes), or JWT_JWKS_FILE with JWT_ISSUER
and JWT_AUDIENCE. README.md lists all variables.

Exit codes: 0 done, 1 failed, 2 bad configuration or command line.
";

/// None for a name that is no command.
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

Serves until SIGTERM or SIGINT. Then it accepts nobody more, takes at most 10 seconds to finish the
requests that it has begun, and exits with code 0. SIGHUP makes it read the files of secrets and the
JWKS again; a bad new file changes nothing.

HOST and PORT say where it listens; HOST may be an address, a name, or unix:/path. A socket from
systemd takes their place. ADMIN_ADDR opens /metrics, /health/live and /health/ready on an address
of their own. The log goes to standard error.
";

const CONFIG: &str = "\
usage: tinytasks [--config FILE] config

Prints every variable with its value in force and where that came from: the environment, a file or
the default. Secrets are hidden. Bad variables are named on standard error, and the exit code is 2.
";

const CHECK: &str = "\
usage: tinytasks [--config FILE] check

Examines everything that serve needs, without changing anything: configuration, certificate,
address and port, limit of open files, database, schema, rights, and rows from before the rules.
Prints warnings and what was found good. Exit code 0 if nothing is wrong, 1 for a finding, 2 for a
bad configuration; the reasons are on standard error.
";

const HEALTHCHECK: &str = "\
usage: tinytasks [--config FILE] healthcheck

Asks the running service for /health at HOST and PORT of the same configuration. Exit code 0 if it
is healthy, 1 if it is not or does not answer within 5 seconds. For the health check of a container
engine: it needs no curl.
";

const MIGRATE: &str = "\
usage: tinytasks [--config FILE] migrate

Applies schema.sql to the database: makes the table, or upgrades an older one in place. Needs
DATABASE_URL alone, of a role that owns the table. Repeating it does no harm.
";

const TOKEN: &str = "\
usage: tinytasks [--config FILE] token --user ID [--ttl 1h]
       tinytasks [--config FILE] token --explain

The first prints a token of that user, signed with JWT_SECRET_KEY or BETTER_AUTH_SECRET. --ttl says
how long it is good: a number and s, m, h or d; without it, an hour.

The second reads a token from standard input and says whether the service accepts it, for whom and
until when, or exactly why not. A header line, the scheme Bearer, quotation marks and line breaks
around the token are removed first. Exit code 0 if it is accepted, else 1.
";

const EXPORT: &str = "\
usage: tinytasks [--config FILE] export --user ID

Prints all tasks of the user by id, each as one line of JSON. Needs DATABASE_URL alone.
";

const PURGE: &str = "\
usage: tinytasks [--config FILE] purge --user ID [--dry-run]

Deletes all tasks of the user for ever and prints how many there were; with --dry-run only counts
them. Needs DATABASE_URL alone.
";
