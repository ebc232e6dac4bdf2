//! The binary as a process: its environment, its end, and what it has printed.

use super::{Directory, PATIENCE, POLL_INTERVAL};
use std::{
    env,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The binary, in a clean environment and an empty working directory.
pub fn binary(directory: &Directory) -> Command {
    let built = env!("CARGO_BIN_EXE_tinytasks");
    let mut command = Command::new(env::var("TINYTASKS_BIN").unwrap_or_else(|_| built.to_owned()));
    command.env_clear().current_dir(directory.path()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit code and output of a command that ended by itself.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end. Its output has to fit into a pipe.
pub fn run(mut command: Command) -> Outcome {
    let mut child = command.spawn().unwrap();
    let status = wait(&mut child, *PATIENCE);
    if status.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outcome =
        Outcome { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert!(status.is_some(), "{command:?} did not end: {outcome:?}");
    outcome
}

/// Runs the binary to its end.
pub fn run_binary(args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let directory = Directory::create();
    let mut command = binary(&directory);
    command.args(args).envs(variables.iter().copied());
    run(command)
}

pub fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || start.elapsed() > timeout {
            return status;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The same command with a socket as its third descriptor.
pub fn inheriting(command: &Command, socket: OwnedFd) -> Command {
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" 3<&0 0</dev/null";
    let mut inheriting = Command::new("/bin/sh");
    inheriting.args(["-c", script]).arg(command.get_program()).stdin(socket);
    inheriting.env_clear().current_dir(command.get_current_dir().unwrap());
    inheriting.stdout(Stdio::piped()).stderr(Stdio::piped());
    inheriting
}

/// The same command, started by a shell that first runs `before`, which changes the shell itself.
pub fn by_shell(command: &Command, before: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    let script = format!("{before} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}
