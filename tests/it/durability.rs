//! Everything crashes, again and again, with `fsync=on`; then the table is held against what the
//! clients were told (see ledger.rs). Two instances of the service share the database.
//! TINYTASKS_DURABILITY_ROUNDS is its length, TINYTASKS_DURABILITY_SEED what it chooses by: the same
//! seed gives the same crashes and the same requests, though never at quite the same moments.

use crate::{
    harness::{Database, Directory, binary, eventually},
    http::Request,
    ledger::{Random, Run, Writer, assert_kept, tally, work_while},
    servers::Server,
    token::SECRET,
};
use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROUNDS_DEFAULT: u64 = 3;
const WRITERS: u64 = 6;
const INSTANCES: usize = 2;

/// The service, which may be killed at any moment; `App` would drop the database with it.
pub struct Instance {
    pub child: Child,
    pub address: String,
    _directory: Directory,
}

impl Instance {
    fn spawn(database_url: &str) -> Self {
        Self::spawn_at("127.0.0.1:0", database_url)
    }

    pub fn spawn_at(address: &str, database_url: &str) -> Self {
        let directory = Directory::create();
        let mut command = binary(&directory);
        let (host, port) = address.split_once(':').unwrap();
        let variables = [("HOST", host), ("PORT", port), ("DATABASE_URL", database_url)];
        // SIGKILL leaves its socket behind: then in a directory that is removed.
        command.envs(variables).env("JWT_SECRET_KEY", SECRET).env("TMPDIR", directory.path());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains(" listening ")).expect("it does not listen");
        let (_, address) = line.split_once("http://").unwrap();
        // Nobody reads the log, and a full pipe would stop the service.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.to_owned(), _directory: directory }
    }

    pub fn is_healthy(&self) -> bool {
        let answer = Request::new(&self.address, "GET", "/health").try_send();
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn what_was_acknowledged_survives_crashes_and_is_there_once() {
    let rounds = number("TINYTASKS_DURABILITY_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let seed = number("TINYTASKS_DURABILITY_SEED").unwrap_or(nanos.into());
    eprintln!("TINYTASKS_DURABILITY_ROUNDS={rounds} TINYTASKS_DURABILITY_SEED={seed}");
    let started = Instant::now();
    let server = Server::start(&["fsync=on"]);
    let database = Database::create_on(&server.url());
    let mut instances = [(); INSTANCES].map(|()| Instance::spawn(&database.url));
    eventually("health", || instances.iter().all(Instance::is_healthy));
    let mut writers = Writer::several(WRITERS, seed);
    let run = Run::new(&[], Duration::ZERO);
    let mut random = Random(!seed);
    let mut crashes = [0; 2];
    for round in 1..=rounds {
        *run.addresses.lock().unwrap() = addresses(&instances);
        work_while(&run, &mut writers, || {
            thread::sleep(random.millis(50, 400));
            let victims = 1 + random.below(3);
            if victims & 1 != 0 {
                crashes[0] += 1;
                if random.below(2) == 0 { server.kill() } else { server.stop("immediate") }
            }
            let instance = random.below(INSTANCES as u64) as usize;
            if victims & 2 != 0 {
                crashes[1] += 1;
                instances[instance].child.kill().unwrap();
                instances[instance].child.wait().unwrap();
            }
            thread::sleep(random.millis(0, 200));
            if victims & 1 != 0 {
                server.start_again();
            }
            if victims & 2 != 0 {
                instances[instance] = Instance::spawn(&database.url);
                *run.addresses.lock().unwrap() = addresses(&instances);
            }
            eventually("health", || instances.iter().all(Instance::is_healthy));
            // What failed in the crash is told now.
            thread::sleep(random.millis(100, 400));
        });
        assert_kept(&writers, &database.url);
        eprintln!("round {round}: {:?} {:?}", started.elapsed(), tally(&writers));
    }
    let tally = tally(&writers);
    let [of_postgresql, of_the_service] = crashes;
    eprintln!(
        "{rounds} rounds in {:.1?}: PostgreSQL crashed {of_postgresql} times, the service \
         {of_the_service} times, {tally:?}, {} tries",
        started.elapsed(),
        run.answers.lock().unwrap().len()
    );
    assert!(tally.acknowledged > 0 && tally.refused > 0, "{tally:?}");
}

fn addresses(instances: &[Instance]) -> Vec<String> {
    instances.iter().map(|instance| instance.address.clone()).collect()
}
