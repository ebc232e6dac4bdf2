//! `tinytasks check`: examines everything that `serve` needs, without changing anything.

use super::{healthcheck, print};
use crate::config::{self, Config};
use crate::descriptors;
use crate::failure::Failure;
use crate::gate::{Address, Certificate, Complaint};
use crate::keys::Keys;
use crate::store;
use socket2::{SockAddr, Socket, Type};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// `tinytasks check`.
pub fn check() -> Result<(), Failure> {
    let config = config::load()?;
    for warning in config.warnings.iter().chain(&open_secrets()) {
        print(&format!("warning: {warning}\n"))?;
    }
    let addresses = check_addresses(&config);
    let descriptors = check_descriptors(&config);
    Keys::open(config.jwt, config::load_jwt).map_err(Failure::of_configuration)?;
    let certificate = Certificate::open(config.tls).map_err(Failure::of_configuration)?;
    print("configuration: complete\n")?;
    let mut findings = certificate.as_ref().map(check_certificate).transpose()?.unwrap_or_default();
    for examination in [addresses, descriptors] {
        match examination {
            Ok(line) => print(&line)?,
            Err(finding) => findings.push(finding),
        }
    }
    let mut say = |line: &str| {
        let _ = print(&format!("{line}\n"));
    };
    findings.extend(store::check(&config.database, config.auto_migrate, &mut say).err().unwrap_or_default());
    if findings.is_empty() { Ok(()) } else { Err(Failure { exit_code: 1, lines: findings }) }
}

/// A warning for each file with a secret that every user of the machine can read. Only root gets these warnings. Any
/// other user may be in a container, where a file looks open although its folder on the host is closed.
fn open_secrets() -> Vec<String> {
    if !is_root() {
        return Vec::new();
    }
    let (settings, ..) = config::settings();
    let open = settings.iter().filter_map(|setting| {
        let file = setting.file_of_secret().filter(|file| is_open(file))?;
        let (name, shown) = (setting.name, file.display());
        Some(format!("{name}: everybody on this machine can read {file:?}; run `chmod 600 {shown}`"))
    });
    open.collect()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether every user can read the file: its own permissions and those of all folders above it allow it.
fn is_open(file: &Path) -> bool {
    let grants = |path: &Path, right| fs::metadata(path).is_ok_and(|data| data.mode() & right != 0);
    let path = file.canonicalize().unwrap_or_default();
    grants(&path, 0o004) && path.ancestors().skip(1).all(|folder| grants(folder, 0o001))
}

/// Returns the reasons for which clients refuse the certificate, and prints those for which they will refuse it
/// soon.
fn check_certificate(certificate: &Certificate) -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    for complaint in certificate.complaints() {
        match complaint {
            Complaint::Error(finding) => findings.push(finding),
            Complaint::Warning(warning) => print(&format!("warning: {warning}\n"))?,
        }
    }
    if let Some(expiry) = certificate.expiry().filter(|_| findings.is_empty()) {
        print(&format!("certificate: valid until {expiry}\n"))?;
    }
    Ok(findings)
}

/// A line if the limit of open files allows fewer connections than `MAX_CONNECTIONS`, else an empty text. Errors:
/// the limit is too low for the service to start.
fn check_descriptors(config: &Config) -> Result<String, String> {
    match descriptors::room(config)?.shortage {
        Some(shortage) => Ok(format!("MAX_CONNECTIONS: {shortage} (LimitNOFILE in a systemd unit)\n")),
        None => Ok(String::new()),
    }
}

/// Whether the service can listen at its addresses. Errors: an address that it cannot listen at.
fn check_addresses(config: &Config) -> Result<String, String> {
    let name = Address::name(&config.listen);
    if let Err(error) = try_bind(&config.listen) {
        // The operator may be examining the configuration of a running service, which uses the address itself.
        if error.kind() == io::ErrorKind::AddrInUse && healthcheck::ask(config).is_ok() {
            return Ok(format!("address: {name} is that of a running tinytasks\n"));
        }
        return Err(format!("address: cannot listen on {name}: {error}; give another HOST or PORT"));
    }
    let mut lines = format!("address: {name} is free{}\n", condition(&config.listen));
    if let Some(address) = config.admin {
        let admin = address.into();
        let free = try_bind(&admin);
        free.map_err(|error| {
            format!("address: cannot listen on ADMIN_ADDR {address}: {error}; give another")
        })?;
        lines += &format!("address: ADMIN_ADDR {address} is free{}\n", condition(&admin));
    }
    Ok(lines)
}

/// Names what a service that does not run as root needs to listen at this address. Empty if it needs nothing, or if
/// this check does not run as root.
fn condition(address: &SockAddr) -> &'static str {
    if is_root() && is_privileged(address) {
        "; a service that does not run as root can use it only with CAP_NET_BIND_SERVICE or systemd's socket unit"
    } else {
        ""
    }
}

/// Whether Linux gives this port only to privileged processes (ip_unprivileged_port_start in ip-sysctl.rst).
fn is_privileged(address: &SockAddr) -> bool {
    let start = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let start = start.trim().parse().unwrap_or(1024);
    address.as_socket().is_some_and(|address| address.port() != 0 && address.port() < start)
}

/// Binds a socket to an address for a moment, without listening. The path of a Unix socket is only examined.
fn try_bind(address: &SockAddr) -> io::Result<()> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    if let Some(path) = address.as_pathname() {
        return look_at_path(path, address, &socket);
    }
    // The service sets this option too. Without it, connections that were just closed would block the port.
    socket.set_reuse_address(true)?;
    socket.bind(address)
}

/// Examines the path of a Unix socket. Errors: the error with which `bind` would fail.
fn look_at_path(path: &Path, address: &SockAddr, socket: &Socket) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.file_type().is_socket() => {
            socket.set_nonblocking(true)?;
            match socket.connect(address) {
                // A process that has ended has left the socket behind. The service will take over its path.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().map(fs::metadata).transpose()?;
            if folder.is_some_and(|folder| folder.is_dir()) { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}
