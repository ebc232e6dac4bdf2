//! `DATABASE_URL`, parsed once: where PostgreSQL is, and how to connect to it. Guarantees: a parameter that
//! this service does not support is refused by name; no message repeats a value except the path of
//! `sslrootcert`, because a password may have been mistyped into any value.

use super::sqlstate::cause;
use super::tls::{Encryption, TlsSettings};
use crate::limits::{CONNECT_CEILING, CONNECT_MAX, SILENT_ADDRESS_LAST, UNACKNOWLEDGED_MAX};
use crate::threads::lock;
use postgres::Config;
use postgres::config::{ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation};
use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The part of the configuration that is about PostgreSQL.
pub struct DatabaseSettings {
    pub url: DatabaseUrl,
    /// The largest number of connections (`DATABASE_POOL_SIZE`).
    pub pool_size: NonZeroU32,
    /// `DATABASE_PREPARED`.
    pub is_prepared: bool,
}

impl DatabaseSettings {
    /// How many connections to PostgreSQL the service makes: those of the pool, and that of the watching thread.
    pub fn connections_max(&self) -> u32 {
        self.pool_size.get().saturating_add(1)
    }
}

/// A checked `DATABASE_URL`. Has no `Debug` and no `Display`, because it holds the password.
pub struct DatabaseUrl {
    config: Config,
    pub tls: TlsSettings,
    /// How long an attempt at one address may take, from the first packet to a usable connection.
    pub connect_max: Duration,
    /// The addresses that did not answer in time, each with the moment at which that was found out.
    silent: Mutex<HashMap<ServerAddress, Instant>>,
}

/// The address at which one attempt to connect is made.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// `host` is the name that the server's certificate must have.
    Tcp { host: String, ip: IpAddr, port: u16 },
    /// The directory of the socket.
    Unix { directory: PathBuf, port: u16 },
}

/// A host of the URL: a name that must be resolved, or an address.
enum Server {
    Named { host: String, port: u16 },
    Known(ServerAddress),
}

impl DatabaseUrl {
    /// Parses the text of `DATABASE_URL`. Errors: what is wrong with the text, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(why_no_url(text).to_owned());
        }
        // The driver would take the part of the password after that ? for the name of a parameter, and its message
        // would contain it.
        if text.split_once('?').is_some_and(|(_, parameters)| parameters.contains('@')) {
            return Err("has an @ behind a ?; in a password or a value write %40 and %3F for them".to_owned());
        }
        let (mut tls, text) = TlsSettings::parse(text)?;
        // The driver's message names the parameter, never its value.
        let config: Config =
            text.parse().map_err(|error| format!("{}; correct or remove it", cause(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host; give postgres://user:password@host/database".to_owned());
        }
        check_numbers(&config)?;
        if config.get_channel_binding() == ChannelBinding::Require && tls.encryption == Encryption::Disabled {
            return Err("channel_binding: require needs TLS; give sslmode=require or stricter".to_owned());
        }
        if config.get_ssl_negotiation() == SslNegotiation::Direct {
            if tls.encryption != Encryption::Required {
                return Err("sslnegotiation: direct needs sslmode=require or stricter".to_owned());
            }
            tls.encryption = Encryption::Direct;
        }
        let connect_max = config.get_connect_timeout().copied().unwrap_or(CONNECT_MAX).min(CONNECT_CEILING);
        Ok(Self { config, tls, connect_max, silent: Mutex::default() })
    }

    /// Whether both URLs name the same hosts and the same database; user and password may differ.
    pub fn is_same_database(&self, other: &Self) -> bool {
        let name = |config: &Config| config.get_dbname().or(config.get_user()).map(str::to_owned);
        let (one, two) = (&self.config, &other.config);
        one.get_hosts() == two.get_hosts()
            && one.get_hostaddrs() == two.get_hostaddrs()
            && one.get_ports() == two.get_ports()
            && name(one) == name(two)
    }

    /// Every address of every host, in the order in which they are to be tried: in the order of the URL, except
    /// that addresses which did not answer a moment ago come last. Errors: no name could be resolved.
    pub fn addresses(&self) -> Result<Vec<ServerAddress>, String> {
        let (mut addresses, mut reasons) = (Vec::new(), Vec::new());
        for server in self.servers() {
            match server {
                Server::Known(address) => addresses.push(address),
                Server::Named { host, port } => match resolve(&host, port) {
                    Ok(found) => addresses.extend(found),
                    Err(reason) => reasons.push(reason),
                },
            }
        }
        if addresses.is_empty() {
            return Err(reasons.join("; "));
        }
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            shuffle(&mut addresses);
        }
        // A cached key, because the key of an address may change while the sort runs.
        addresses.sort_by_cached_key(|address| self.was_silent(address));
        Ok(addresses)
    }

    /// Records that an address did not answer in time. For a while it is tried after the others.
    pub fn mark_silent(&self, address: ServerAddress) {
        let mut silent = lock(&self.silent);
        // A name may resolve to other addresses each time, so old entries are removed; otherwise the table would
        // grow.
        silent.retain(|_, since| since.elapsed() < SILENT_ADDRESS_LAST);
        silent.insert(address, Instant::now());
    }

    fn was_silent(&self, address: &ServerAddress) -> bool {
        lock(&self.silent).get(address).is_some_and(|since| since.elapsed() < SILENT_ADDRESS_LAST)
    }

    /// The hosts of the URL. The lists `host`, `hostaddr` and `port` belong together by position; a single port
    /// holds for all hosts.
    fn servers(&self) -> Vec<Server> {
        let (hosts, ips, ports) =
            (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        let server = |index: usize| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match (hosts.get(index), ips.get(index)) {
                (Some(Host::Tcp(host)), None) => Server::Named { host: host.clone(), port },
                (Some(Host::Unix(directory)), _) => {
                    Server::Known(ServerAddress::Unix { directory: directory.clone(), port })
                }
                (Some(Host::Tcp(host)), Some(ip)) => {
                    Server::Known(ServerAddress::Tcp { host: host.clone(), ip: *ip, port })
                }
                // Without a name, the server's certificate must contain the address.
                (None, Some(ip)) => Server::Known(ServerAddress::Tcp { host: ip.to_string(), ip: *ip, port }),
                (None, None) => Server::Named { host: String::new(), port },
            }
        };
        (0..hosts.len().max(ips.len())).map(server).collect()
    }

    /// The driver's settings for one address. They tell the driver that every TCP connection begins with TLS;
    /// whether it does is decided by [`Negotiation`](super::stream::Negotiation).
    pub fn config_for(&self, address: &ServerAddress, options: Option<&str>) -> Config {
        let (from, mut to) = (&self.config, Config::new());
        if let Some(user) = from.get_user() {
            to.user(user);
        }
        if let Some(password) = from.get_password() {
            to.password(password);
        }
        if let Some(name) = from.get_dbname() {
            to.dbname(name);
        }
        let options: Vec<_> = options.into_iter().chain(from.get_options()).collect();
        if !options.is_empty() {
            to.options(&options.join(" "));
        }
        to.application_name(from.get_application_name().unwrap_or("tinytasks"))
            .target_session_attrs(from.get_target_session_attrs())
            .channel_binding(from.get_channel_binding())
            .connect_timeout(self.connect_max)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX)
            .keepalives(from.get_keepalives())
            .keepalives_idle(UNACKNOWLEDGED_MAX);
        if let Some(interval) = from.get_keepalives_interval() {
            to.keepalives_interval(interval);
        }
        if let Some(retries) = from.get_keepalives_retries() {
            to.keepalives_retries(retries);
        }
        match address {
            ServerAddress::Tcp { host, ip, port } => to
                .host(host)
                .hostaddr(*ip)
                .port(*port)
                .ssl_mode(SslMode::Require)
                .ssl_negotiation(SslNegotiation::Direct),
            // PostgreSQL does not support TLS over a Unix socket, so a mode that requires TLS fails there.
            ServerAddress::Unix { directory, port } => {
                to.host_path(directory).port(*port).ssl_mode(match self.tls.encryption {
                    Encryption::Disabled | Encryption::Preferred => SslMode::Disable,
                    Encryption::Required | Encryption::Direct => SslMode::Require,
                })
            }
        };
        to
    }
}

fn why_no_url(text: &str) -> &'static str {
    if text.trim().is_empty() {
        "is empty; give postgres://user:password@host/database"
    } else if text.starts_with('\u{feff}') {
        "begins with a byte order mark; save the file without it"
    } else if text.starts_with(char::is_whitespace) {
        "begins with white space; remove it"
    } else if text.trim_start_matches("export ").starts_with("DATABASE_URL") {
        "begins with the variable's name; give the value alone, postgres://user:password@host/database"
    } else {
        "must begin with postgres://"
    }
}

/// Errors: hosts, addresses and ports of the URL do not belong together.
fn check_numbers(config: &Config) -> Result<(), String> {
    let (hosts, ips) = (config.get_hosts().len(), config.get_hostaddrs().len());
    if hosts > 0 && ips > 0 && hosts != ips {
        return Err(format!("hostaddr: names {ips} addresses for {hosts} hosts; give one for each"));
    }
    let (ports, servers) = (config.get_ports().len(), hosts.max(ips));
    if ports > 1 && ports != servers {
        return Err(format!(
            "port: names {ports} ports for {servers} hosts; give one for all or one for each"
        ));
    }
    Ok(())
}

/// The addresses of a name, each once. The system's resolver has time limits of its own (resolv.conf(5)), which
/// are not part of the time limit of an attempt. Errors: the name, and why it has no address.
fn resolve(host: &str, port: u16) -> Result<Vec<ServerAddress>, String> {
    use std::net::ToSocketAddrs;
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}; check the host in DATABASE_URL"))?;
    let mut addresses = Vec::new();
    for socket in found {
        let address = ServerAddress::Tcp { host: host.to_owned(), ip: socket.ip(), port };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(format!("{host}: has no address")) } else { Ok(addresses) }
}

/// Shuffles the addresses for `load_balance_hosts=random`, in another order for each connection.
fn shuffle(addresses: &mut [ServerAddress]) {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new();
    addresses.sort_by_cached_key(|address| random.hash_one(address));
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Tcp { host, ip, port } if *host == ip.to_string() => write!(f, "{ip} port {port}"),
            Self::Tcp { host, ip, port } => write!(f, "{host} ({ip}) port {port}"),
            Self::Unix { directory, port } => write!(f, "{} port {port}", directory.display()),
        }
    }
}
