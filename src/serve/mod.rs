//! `tinytasks serve`: the order in which its parts are started, what each signal does, and how the service
//! ends.

mod serving; //        one client in the hands of one thread
mod write; //          an answer → bytes
mod large_answers; //  the memory of answers that are being read

use crate::config::{self, Config};
use crate::failure::Failure;
use crate::gate::{Address, Certificate, Gate, Registry};
use crate::http::{self, App, Cors, Face, RateLimiter};
use crate::keys::Keys;
use crate::limits::{
    ADMIN_CONNECTIONS_MAX, DRAIN_TIMEOUT, IDLE_TIMEOUT_DEFAULT, START_DATABASE_INTERVAL, START_DATABASE_WAIT,
};
use crate::store::{Readiness, Store};
use crate::threads::{guarded, spawn};
use crate::{descriptors, logging, systemd};
use preempt_rt::sched::{Pid, Scheduler, SchedulerParams, get_scheduler};
use serving::Service;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{SockAddr, Socket};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// Serves until SIGTERM or SIGINT. Errors: the configuration is invalid, or a part cannot be started.
pub fn serve() -> Result<(), Failure> {
    let config = config::load()?;
    set_batch_policy();
    // Before a second thread is started, because it removes variables from the environment.
    let inherited =
        systemd::inherited().map_err(|error| format!("cannot use the inherited socket: {error}"))?;
    logging::start(config.log_is_json, &config.log_filter).map_err(no_thread)?;
    for warning in &config.warnings {
        log::warn!(reason = warning.as_str(); "configuration");
    }
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let service = start(config, inherited)?;
    reload_until_stopped(signals, &service.app)?;
    service.gate.stop_accepting();
    log::info!("stopping");
    systemd::stopping();
    service.app.is_stopping.store(true, Relaxed);
    service.gate.drain(DRAIN_TIMEOUT);
    Ok(())
}

/// Sets the scheduling policy SCHED_BATCH (sched(7)) for this thread. The threads that it starts inherit the
/// policy. With SCHED_BATCH, a thread that wakes up does not preempt a running thread of this program or of
/// another one, but waits for its turn. If the process was started with a policy other than SCHED_NORMAL,
/// that policy is kept.
fn set_batch_policy() {
    if get_scheduler(Pid::current_thread()).is_ok_and(|policy| policy == Scheduler::SCHED_NORMAL) {
        // A sandbox may forbid the change; the service then runs with SCHED_NORMAL.
        let _ = Scheduler::SCHED_BATCH.with_params(SchedulerParams { priority: 0 }).set_current();
    }
}

/// Starts everything that serves, in this order: the store, the admin listener, the public listener, the
/// watchdog.
fn start(config: Config, inherited: Option<Socket>) -> Result<Arc<Service>, Failure> {
    let room = descriptors::room(&config);
    let keys = Keys::open(config.jwt, config::load_jwt).map_err(Failure::of_configuration)?;
    let certificate = Certificate::open(config.tls).map_err(Failure::of_configuration)?.map(Arc::new);
    if let Some(certificate) = &certificate {
        certificate.follow().map_err(no_thread)?;
    }
    keys.follow().map_err(no_thread)?;
    let is_https = certificate.is_some();
    let options = http::Options {
        cors: Cors::new(config.cors_origins),
        has_docs: config.docs,
        certificate: certificate.clone(),
        requires_if_match: config.requires_if_match,
        rate_limiter: config.rate_limit.map(RateLimiter::new),
    };
    let room = room?;
    if let Some(reason) = &room.shortage {
        log::info!(reason = reason.as_str(); "fewer connections than MAX_CONNECTIONS");
    }
    let registry = Arc::new(Registry::new(room.connections));
    let store = Store::open(config.database, config.auto_migrate)?;
    let app = Arc::new(App::new(store, keys, options));
    if let Some(address) = config.admin {
        start_admin(address, &app)?;
    }
    if inherited.is_some() {
        wait_for_database(&app.store);
    }
    let (gate, listener) = Gate::open(
        &config.listen,
        inherited,
        registry,
        config.trusted_proxies,
        certificate,
        config.idle_timeout,
    )
    .map_err(|error| cannot_listen(&config.listen, &error, "HOST or PORT"))?;
    let service = start_service(gate, listener, &app, Face::Public)?;
    if !is_https && !service.gate.address.is_local() {
        log::warn!("plain HTTP beyond this machine: set TLS_CERT_FILE, or let a proxy on it speak HTTPS");
    }
    let scheme = if is_https { "https" } else { "http" };
    log::info!(address = format!("{scheme}://{}", service.gate.address).as_str(); "listening");
    let watched = Arc::clone(&service);
    systemd::start_watchdog(move |patience| watched.gate.address.is_alive(patience)).map_err(no_thread)?;
    systemd::ready();
    Ok(service)
}

fn start_admin(address: SocketAddr, app: &Arc<App>) -> Result<(), Failure> {
    let registry = Arc::new(Registry::new(ADMIN_CONNECTIONS_MAX));
    let address = address.into();
    let (gate, listener) = Gate::open(&address, None, registry, Vec::new(), None, IDLE_TIMEOUT_DEFAULT)
        .map_err(|error| cannot_listen(&address, &error, "ADMIN_ADDR"))?;
    let service = start_service(gate, listener, app, Face::Admin)?;
    log::info!(address = format!("http://{}", service.gate.address).as_str(); "metrics and probes");
    Ok(())
}

fn start_service(gate: Gate, listener: Socket, app: &Arc<App>, face: Face) -> Result<Arc<Service>, Failure> {
    Service::start(gate, Arc::clone(app), face, listener).map_err(no_thread)
}

fn no_thread(error: io::Error) -> Failure {
    format!("cannot start a thread: {error}").into()
}

fn cannot_listen(address: &SockAddr, error: &io::Error, variables: &str) -> Failure {
    format!("cannot listen on {}: {error}; give another {variables}", Address::name(address)).into()
}

fn wait_for_database(store: &Store) {
    let began = Instant::now();
    while store.pool.readiness() != Readiness::Ready && began.elapsed() < START_DATABASE_WAIT {
        thread::sleep(START_DATABASE_INTERVAL);
    }
}

/// Returns at SIGTERM or SIGINT. SIGHUP makes another thread reload the secrets: if that thread waits for a
/// file on a disk that does not answer, SIGTERM still ends the service.
fn reload_until_stopped(mut signals: Signals, app: &Arc<App>) -> Result<(), Failure> {
    let app = Arc::clone(app);
    let (signalled, signals_to_reload) = mpsc::sync_channel(1);
    let work = move || {
        for () in signals_to_reload {
            systemd::reloading();
            let _ = guarded(|| reload(&app));
            systemd::ready();
        }
    };
    spawn("reload", work).map_err(no_thread)?;
    for _ in signals.forever().take_while(|signal| *signal == SIGHUP) {
        // The channel is full if a reload is already waiting to begin. That reload serves this signal too.
        if signalled.try_send(()).is_err() {
            log::warn!("SIGHUP: a reload is already waiting for the running one to end");
        }
    }
    Ok(())
}

/// Reads the files that hold secrets again. If a new file is invalid, the old secret stays in use; the other
/// secrets are replaced all the same.
fn reload(app: &App) {
    let database = config::load_database().map_err(|complaints| complaints.join("; "));
    let database = database.and_then(|database| app.store.pool.reconnect_with(database.url));
    let reloads =
        [("token secrets kept as they were", app.keys.reload()), ("DATABASE_URL kept as it was", database)];
    if reloads.iter().all(|(_, outcome)| outcome.is_ok()) {
        log::info!("secrets read again");
    }
    for (kept, outcome) in reloads {
        if let Err(reason) = outcome {
            log::error!(reason = reason.as_str(); "{kept}");
        }
    }
}
