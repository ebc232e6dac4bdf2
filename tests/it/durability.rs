//! Everything crashes, again and again, with `fsync=on`; then the table is held against what the
//! clients were told (see support/ledger.rs). Two instances of the service share the database.
//! TINYTASKS_DURABILITY_ROUNDS is its length, TINYTASKS_DURABILITY_SEED what it chooses by: the same
//! seed gives the same crashes and the same requests, though never at quite the same moments.
//! On Citus, which the test cannot crash, only the service crashes.

use crate::support::{
    harness::{Database, eventually, number},
    instances::Instance,
    ledger::{Run, Writer, assert_kept, tally, work_while},
    reference::Random,
    servers::Server,
};
use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

const ROUNDS_DEFAULT: u64 = 3;
const WRITERS: u64 = 6;
const INSTANCES: usize = 2;

#[test]
fn what_was_acknowledged_survives_crashes_and_is_there_once() {
    let rounds = number("TINYTASKS_DURABILITY_ROUNDS", ROUNDS_DEFAULT);
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let seed = number("TINYTASKS_DURABILITY_SEED", nanos.into());
    eprintln!("TINYTASKS_DURABILITY_ROUNDS={rounds} TINYTASKS_DURABILITY_SEED={seed}");
    let started = Instant::now();
    let server = (!Database::is_on_citus()).then(|| Server::start(&["fsync=on"]));
    let database = server.as_ref().map_or_else(Database::create, |server| Database::create_on(&server.url()));
    let mut instances = [(); INSTANCES].map(|()| Instance::spawn(&database.url));
    eventually("health", || instances.iter().all(Instance::is_healthy));
    let mut writers = Writer::several(WRITERS, seed);
    let run = Run::new(&[], Duration::ZERO);
    let mut random = Random::new(!seed);
    let mut crashes = [0; 2];
    for round in 1..=rounds {
        *run.addresses.lock().unwrap() = addresses(&instances);
        work_while(&run, &mut writers, || {
            thread::sleep(some_millis(&mut random, 50..400));
            let victims = 1 + random.below(3);
            let server = server.as_ref().filter(|_| victims & 1 != 0);
            if let Some(server) = server {
                crashes[0] += 1;
                if random.below(2) == 0 { server.kill() } else { server.stop("immediate") }
            }
            let instance = random.below(INSTANCES);
            let crashes_service = victims & 2 != 0 || server.is_none();
            if crashes_service {
                crashes[1] += 1;
                instances[instance].child.kill().unwrap();
                instances[instance].child.wait().unwrap();
            }
            thread::sleep(some_millis(&mut random, 0..200));
            if let Some(server) = server {
                server.start_again();
            }
            if crashes_service {
                instances[instance] = Instance::spawn(&database.url);
                *run.addresses.lock().unwrap() = addresses(&instances);
            }
            eventually("health", || instances.iter().all(Instance::is_healthy));
            // Now the failures of the crash are reported.
            thread::sleep(some_millis(&mut random, 100..400));
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

fn some_millis(random: &mut Random, range: Range<usize>) -> Duration {
    Duration::from_millis((range.start + random.below(range.len())) as u64)
}
