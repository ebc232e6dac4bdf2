//! `DATABASE_URL` → a connection. Guarantees: what the URL asks for and cannot be had is refused by
//! name; a machine that is gone is noticed.

use super::sqlstate::cause;
use super::tls::Tls;
use postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};
use postgres::{Client, Config};
use r2d2_postgres::PostgresConnectionManager;
use std::net::IpAddr;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The server ends a statement, and a wait for a lock, after this.
const STATEMENT_TIMEOUT: &str = "-c statement_timeout=5s";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Sent data that stays unacknowledged so long means that the machine is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

pub type Manager = PostgresConnectionManager<MakeRustlsConnect>;
/// Hosts, addresses, ports and name of a database, whoever asks for it.
pub type Place = (Vec<Host>, Vec<IpAddr>, Vec<u16>, Option<String>);

/// Says what is wrong with a `DATABASE_URL`, or that this service cannot do it.
pub fn check_url(url: &str) -> Result<(), String> {
    parse_url(url).map(|_| ())
}

fn parse_url(url: &str) -> Result<(Config, Tls), String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("must begin with postgres://".to_owned());
    }
    // The driver's complaint would name what it takes for a parameter.
    if url.split_once('?').is_some_and(|(_, parameters)| parameters.contains('@')) {
        return Err("has an @ behind a ?; in a password or a value write %40 and %3F for them".to_owned());
    }
    let (tls, url) = Tls::parse(url)?;
    // The driver's message names the parameter, never its value.
    let mut config: Config = url.parse().map_err(|error| cause(&error))?;
    config.ssl_mode(tls.mode);
    if config.get_hosts().is_empty() {
        // By the address then, also in a certificate.
        for address in config.get_hostaddrs().to_vec() {
            config.host(&address.to_string());
        }
    }
    if config.get_hosts().is_empty() {
        return Err("names no host; give postgres://user:password@host/database".to_owned());
    }
    if config.get_channel_binding() == ChannelBinding::Require && tls.mode == SslMode::Disable {
        return Err("channel_binding: require needs TLS; give sslmode=require or stricter".to_owned());
    }
    if config.get_ssl_negotiation() == SslNegotiation::Direct && tls.mode != SslMode::Require {
        return Err("sslnegotiation: direct needs sslmode=require or stricter".to_owned());
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("tinytasks");
    }
    config.tcp_user_timeout(TCP_USER_TIMEOUT).keepalives_idle(TCP_USER_TIMEOUT);
    Ok((config, tls))
}

/// A pooler that cannot keep prepared statements does not take session settings either.
pub fn manager(url: &str, session_settings: bool) -> Result<(Manager, Place), String> {
    let (mut config, tls) = parse_url(url)?;
    if session_settings {
        let options = [STATEMENT_TIMEOUT, config.get_options().unwrap_or_default()].join(" ");
        config.options(options.trim_end());
    }
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let name = config.get_dbname().or(config.get_user()).map(str::to_owned);
    let place = (hosts.to_vec(), addresses.to_vec(), ports.to_vec(), name);
    Ok((PostgresConnectionManager::new(config, tls.connector()?), place))
}

/// One connection for a command, without the limit on statements; and how it is encrypted.
pub fn connect_once(url: &str) -> Result<(Client, String), String> {
    let (config, tls) = parse_url(url)?;
    let client = config.connect(tls.connector()?).map_err(|error| cause(&error))?;
    Ok((client, tls.report()))
}
