//! `tinytasks serve`: what is started in which order, what a signal does, and the end.

use crate::auth::Keys;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::gate::{self, Acceptor, Address, Gate, Registry};
use crate::http::{self, App, Cors, Limiter, Service};
use crate::store::{Readiness, Store};
use crate::{logging, systemd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{SockAddr, Socket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// For the database, while clients wait in an inherited socket: rather that than a 503 at each restart.
const DATABASE_PATIENCE: Duration = Duration::from_secs(3);
const DATABASE_POLL: Duration = Duration::from_millis(5);
/// Of `ADMIN_ADDR`.
const ADMIN_CONNECTIONS_MAX: usize = 16;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
pub fn serve() -> Result<(), Failure> {
    let config = config::load()?;
    logging::start(config.log_is_json, &config.log_filter);
    let inherited =
        systemd::inherited().map_err(|error| format!("cannot use the inherited socket: {error}"))?;
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let keys = Keys::new(&config.jwt).map_err(Failure::of_configuration)?;
    let descriptors = own_descriptors(&config);
    let tls = Acceptor::open(config.tls).map_err(Failure::of_configuration)?;
    let is_https = tls.is_some();
    let options = http::Options {
        cors: Cors::new(config.cors_origins),
        has_docs: config.docs,
        is_https,
        requires_if_match: config.requires_if_match,
        limiter: config.rate_limit.map(Limiter::new),
    };
    let registry = Arc::new(Registry::new(config.connections_max, descriptors)?);
    let store = Store::open(config.database, config.auto_migrate)?;
    let app = Arc::new(App::new(store, keys, options, Arc::clone(&registry)));
    if let Some(address) = config.admin {
        let registry = Arc::new(Registry::new(ADMIN_CONNECTIONS_MAX, 0)?);
        let options = gate::Options { registry, trusted_proxies: Vec::new(), tls: None };
        let admin = start(&address.into(), None, options, Service { app: Arc::clone(&app), is_admin: true })?;
        log::info!(address = format!("http://{}", admin.address).as_str(); "metrics and probes");
    }
    if inherited.is_some() {
        wait_for_database(&app.store);
    }
    let options = gate::Options { registry, trusted_proxies: config.trusted_proxies, tls };
    let gate = start(&config.listen, inherited, options, Service { app: Arc::clone(&app), is_admin: false })?;
    if !is_https && !gate.address.is_local() {
        log::warn!("plain HTTP beyond this machine: set TLS_CERT_FILE, or let a proxy on it speak HTTPS");
    }
    let scheme = if is_https { "https" } else { "http" };
    log::info!(address = format!("{scheme}://{}", gate.address).as_str(); "listening");
    let watched = Arc::clone(&gate);
    let watchdog = systemd::start_watchdog(move |patience| watched.address.is_alive(patience));
    watchdog.map_err(|error| format!("cannot start a thread: {error}"))?;
    systemd::ready();
    reload_until_stopped(signals, &app);
    log::info!("stopping");
    systemd::stopping();
    app.is_stopping.store(true, Relaxed);
    gate.stop(DRAIN_TIME);
    Ok(())
}

fn own_descriptors(config: &Config) -> usize {
    // Five for the event loop of a database connection; some for tiny_http, and for files.
    let own = (config.database.pool_size.get() as usize + 1) * 5 + 48;
    own + config.admin.map_or(0, |_| ADMIN_CONNECTIONS_MAX + 16)
}

fn start(
    address: &SockAddr,
    inherited: Option<Socket>,
    options: gate::Options,
    service: Service,
) -> Result<Arc<Gate<Service>>, Failure> {
    Gate::start(address, inherited, options, service)
        .map_err(|error| format!("cannot listen on {}: {error}", Address::name(address)).into())
}

fn wait_for_database(store: &Store) {
    let began = Instant::now();
    while store.pool.readiness() != Readiness::Ready && began.elapsed() < DATABASE_PATIENCE {
        thread::sleep(DATABASE_POLL);
    }
}

fn reload_until_stopped(mut signals: Signals, app: &App) {
    for _ in signals.forever().take_while(|signal| *signal == SIGHUP) {
        systemd::reloading();
        reload(app);
        systemd::ready();
    }
}

/// Takes over what may have changed in the files of secrets; a bad new file keeps the old.
fn reload(app: &App) {
    let reloaded = config::load().map_err(|complaints| complaints.join("; ")).and_then(|config| {
        let keys = Keys::new(&config.jwt)?;
        app.store.pool.reconnect_with(config.database.url)?;
        app.set_keys(keys);
        Ok(())
    });
    match reloaded {
        Ok(()) => log::info!("secrets read again"),
        Err(reason) => log::error!(reason = reason.as_str(); "secrets kept as they were"),
    }
}
