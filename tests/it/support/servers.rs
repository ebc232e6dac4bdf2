//! PostgreSQL servers that a test may crash, freeze, fill and promote: made by scripts/cluster, each
//! in a directory of its own. The shared server is not touched.

use crate::support::harness::{Directory, eventually};
use postgres::{Client, NoTls};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

/// The setting for a server that must be fast and need not survive a crash.
pub const UNSAFE: &str = "fsync=off";

pub struct Server {
    directory: Directory,
    settings: Vec<String>,
    /// Runs a command in the mount namespace in which the server's files are visible.
    wrapper: Vec<String>,
}

impl Server {
    /// A setting is `name=value`.
    pub fn start(settings: &[&str]) -> Self {
        let server = Self::new(settings);
        server.start_again();
        server
    }

    fn new(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { directory: Directory::create(), settings, wrapper: Vec::new() }
    }

    /// A server on a disk of that size. An error says why this machine cannot make one.
    pub fn start_on_small_disk(megabytes: u32, settings: &[&str]) -> Result<Self, String> {
        let mut server = Self::new(settings);
        let home = server.home();
        fs::create_dir(&home).unwrap();
        // The mount exists in a namespace of its own, and disappears with the last process there.
        let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && exec \"$@\"");
        let wrapper = ["unshare", "--mount", "sh", "-c", &mount, home.to_str().unwrap()];
        let may = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").output();
        let may = may.map_err(|error| error.to_string())?;
        if !may.status.success() {
            return Err(String::from_utf8_lossy(&may.stderr).into_owned());
        }
        server.wrapper = wrapper.map(str::to_owned).to_vec();
        let both = "\"$0\" start \"$@\" && cat \"$1/data/postmaster.pid\"";
        let mut arguments = vec!["-c", both, SCRIPT, home.to_str().unwrap()];
        arguments.extend(server.settings.iter().flat_map(|setting| ["-c", setting]));
        let output = server.run("bash", &arguments);
        let postmaster = output.lines().nth(1).expect(&output);
        server.wrapper = vec!["nsenter".to_owned(), format!("--mount=/proc/{postmaster}/ns/mnt")];
        Ok(server)
    }

    pub fn start_again(&self) {
        let settings: Vec<&str> = self.settings.iter().flat_map(|setting| ["-c", setting]).collect();
        self.cluster("start", &settings);
    }

    /// The mode is one of `pg_ctl`'s.
    pub fn stop(&self, mode: &str) {
        self.cluster("stop", &[mode]);
    }

    /// From now on the server also takes TLS, with this certificate. Called again, it changes the
    /// certificate for new connections.
    pub fn encrypt(&self, [cert, key]: &[String; 2]) {
        let data = self.home().join("data");
        for (from, name) in [(cert, "server.crt"), (key, "server.key")] {
            let path = data.join(name);
            fs::copy(from, &path).unwrap();
            self.run("chown", &[&format!("--reference={}", data.display()), path.to_str().unwrap()]);
            self.run("chmod", &["600", path.to_str().unwrap()]);
        }
        self.set("ssl", "on");
    }

    /// Roles whose password is stored as MD5 may also log in.
    pub fn allow_md5(&self) {
        let file = self.home().join("data/pg_hba.conf");
        let rules = fs::read_to_string(&file).unwrap().replace("scram-sha-256", "md5");
        fs::write(&file, rules).unwrap();
        self.reload();
    }

    /// Changes a setting that needs no restart.
    pub fn set(&self, name: &str, value: &str) {
        self.client().batch_execute(&format!("alter system set {name} = '{value}'")).unwrap();
        self.reload();
    }

    /// Reloads the configuration, and returns when new connections use it.
    fn reload(&self) {
        let loaded = || {
            let row = self.client().query_one("select pg_conf_load_time()::text", &[]).unwrap();
            row.get::<_, String>(0)
        };
        let before = loaded();
        self.client().batch_execute("select pg_reload_conf()").unwrap();
        eventually("new settings", || loaded() != before);
    }

    /// The URL of the server's superuser. It ends in `/postgres`.
    pub fn url(&self) -> String {
        self.cluster("url", &[])
    }

    /// Host and port.
    pub fn address(&self) -> String {
        let url = self.url();
        let (_, rest) = url.split_once('@').unwrap();
        rest.split('/').next().unwrap().to_owned()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.url(), NoTls).unwrap()
    }

    /// Makes a streaming standby of this server.
    pub fn standby(&self, settings: &[&str]) -> Self {
        let standby = Self::new(settings);
        let (from, to) = (self.home(), standby.home());
        fs::create_dir(&to).unwrap();
        fs::copy(from.join("password"), to.join("password")).unwrap();
        let program = format!("{}/pg_basebackup", self.cluster("programs", &[]));
        let to = to.to_str().unwrap();
        let (url, data) = (self.url(), format!("{to}/data"));
        let options = ["--checkpoint=fast", "--write-recovery-conf", "--no-sync"];
        standby.run(&program, &[&options[..], &["--dbname", &url, "--pgdata", &data]].concat());
        let reference = format!("--reference={}", from.join("data").display());
        standby.run("chown", &["--recursive", &reference, to]);
        standby.start_again();
        standby
    }

    /// Makes a standby that must confirm every commit from now on.
    pub fn synchronous_standby(&self, settings: &[&str]) -> Self {
        let standby = self.standby(settings);
        let mut client = self.client();
        client.batch_execute("alter system set synchronous_standby_names = '*'").unwrap();
        client.batch_execute("select pg_reload_conf()").unwrap();
        eventually("a synchronous standby", || {
            let states = "select from pg_stat_replication where sync_state = 'sync'";
            client.execute(states, &[]).unwrap() == 1
        });
        standby
    }

    /// Promotes this standby to a primary.
    pub fn promote(&self) {
        let row = self.client().query_one("select pg_promote(true, 20)", &[]).unwrap();
        assert!(row.get::<_, bool>(0), "the standby is not promoted");
    }

    /// Sends SIGKILL to the postmaster. Its other processes notice that and end.
    pub fn kill(&self) {
        signal("KILL", &[self.postmaster()]);
    }

    /// Stops all processes of the server (SIGSTOP) for as long as the returned value lives.
    pub fn freeze(&self) -> Frozen {
        // The postmaster first, as it starts the others.
        let postmaster = self.postmaster();
        signal("STOP", &[postmaster]);
        let processes = [vec![postmaster], children(postmaster)].concat();
        signal("STOP", &processes);
        Frozen(processes)
    }

    /// Fills the server's disk.
    pub fn fill_disk(&self) {
        // `cat` fails when the disk is full.
        self.run("sh", &["-c", "cat /dev/zero >\"$0\" 2>/dev/null || true", &self.ballast()]);
    }

    pub fn make_room(&self) {
        self.run("rm", &[&self.ballast()]);
    }

    fn ballast(&self) -> String {
        self.home().join("ballast").to_str().unwrap().to_owned()
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("cluster")
    }

    fn postmaster(&self) -> u32 {
        let file = fs::read_to_string(self.home().join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    fn cluster(&self, command: &str, more: &[&str]) -> String {
        self.run(SCRIPT, &[&[command, self.home().to_str().unwrap()], more].concat())
    }

    /// Its standard output.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        // A file and not a pipe: the started server would keep a pipe open, so reading it would never end.
        let path = self.directory.path().join("output");
        let mut words = self.wrapper.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).stdin(Stdio::null()).stdout(File::create(&path).unwrap());
        let status = command.status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
        fs::read_to_string(&path).unwrap().trim().to_owned()
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");

impl Drop for Server {
    fn drop(&mut self) {
        // A failure is ignored: the test may have stopped it.
        let mut words = self.wrapper.iter().map(String::as_str).chain([SCRIPT, "stop"]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(self.home()).arg("immediate").stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
}

pub struct Frozen(Vec<u32>);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

/// Sends a signal, named as for `kill`, to processes. It is no error if a process has already ended.
fn signal(name: &str, processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    let _ = Command::new("kill").args(["-s", name]).args(processes).stderr(Stdio::null()).status();
}

fn children(parent: u32) -> Vec<u32> {
    let is_child = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // "pid (name) state parent …", proc(5); the name may hold anything.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let names = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(is_child).collect()
}
