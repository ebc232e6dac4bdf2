//! tinytasks: parses the command line and runs a command. The first group of modules is in the order in which
//! a request passes through them.

mod serve; //     start, signals, stop
mod gate; //      bytes of a client → one whole request, and the answer back
mod http; //      request → the checks in order → answer
mod auth; //      Authorization field → Caller
mod keys; //      secrets and public keys → the verdict on a token
mod token; //     parses a token
mod refusal; //   what a token can be refused for
mod jwks; //      the file of a JWKS → public keys
mod task; //      the domain types and their parsing
mod store; //     Caller and task types → SQL → PostgreSQL

mod limits; //    every duration, size and count, with its reason
mod error; //     everything that can go wrong with a request, and the answer to it
mod config; //    environment → Config
mod commands; //  the commands other than serve
mod help; //      what --help prints
mod failure; //   why a command failed, and its exit code
mod logging; //   log records → lines
mod log_queue; // log lines → standard error; no caller waits for it
mod log_throttle; // at most one line per second from each place that uses it
mod metrics; //   counters and measurements, as text for Prometheus
mod watched; //   values that are read again when their files change
mod descriptors; // how many connections the limit on open files leaves room for
mod systemd; //   socket activation and notifications
mod threads; //   starts threads; locks that survive a panic, and the only place that catches one
mod semaphore; // permits, given in the order in which threads asked for them

use commands::{check, explain, export, healthcheck, issue, migrate, print, purge, settings};
use failure::Failure;
use serve::serve;
use std::process::ExitCode;

fn main() -> ExitCode {
    let exit_code = match arguments().and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in &failure.lines {
                log_queue::say(&failure::escaped(line));
            }
            ExitCode::from(failure.exit_code)
        }
    };
    log_queue::flush();
    exit_code
}

/// Splits `--user=alice` into `--user` and `alice`, and likewise each option with a value.
fn arguments() -> Result<Vec<String>, Failure> {
    let mut arguments = Vec::new();
    for argument in std::env::args_os().skip(1) {
        let Ok(argument) = argument.into_string() else {
            return Err(Failure::of_usage("an argument is not UTF-8"));
        };
        match argument.split_once('=') {
            Some((name @ ("--config" | "--user" | "--ttl"), value)) => {
                arguments.extend([name.to_owned(), value.to_owned()]);
            }
            _ => arguments.push(argument),
        }
    }
    Ok(arguments)
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--config"] => Err(Failure::of_usage("--config: give a file behind it")),
        ["--config", file, command @ ..] => {
            config::read_from(file);
            run_command(command).map_err(|failure| failure.for_file(file))
        }
        command => run_command(command),
    }
}

fn run_command(command: &[&str]) -> Result<(), Failure> {
    match command {
        [] | ["serve"] => serve(),
        ["config"] => settings(),
        ["healthcheck"] => healthcheck(),
        ["migrate"] => migrate(),
        ["check"] => check(),
        ["token", "--explain"] => explain(),
        ["--help" | "-h" | "help"] => print(help::ALL),
        ["help", command] | [command, .., "--help" | "-h"] => match help::of(command) {
            Some(text) => print(text),
            None => Err(Failure::of_usage(&format!("unknown command: {command}"))),
        },
        ["token", options @ ..] => issue(options),
        ["export", "--user", user] => export(user),
        ["purge", "--user", user] => purge(user, false),
        ["purge", "--user", user, "--dry-run"] | ["purge", "--dry-run", "--user", user] => purge(user, true),
        ["export" | "purge", ..] => {
            Err(Failure::of_usage("give export --user ID, or purge --user ID [--dry-run]"))
        }
        ["--version" | "-V"] => print(concat!("tinytasks ", env!("CARGO_PKG_VERSION"), "\n")),
        other if other.contains(&"--config") => {
            Err(Failure::of_usage("give --config FILE before the command"))
        }
        [command, argument, ..] if help::of(command).is_some() => {
            let kind = if argument.starts_with('-') { "option" } else { "argument" };
            Err(Failure::of_usage(&format!("{command}: unknown {kind} {argument}")))
        }
        other if other.first().is_some_and(|option| option.starts_with('-')) => {
            Err(Failure::of_usage(&format!("unknown option: {}", other.join(" "))))
        }
        other => Err(Failure::of_usage(&format!("unknown command: {}", other.join(" ")))),
    }
}
