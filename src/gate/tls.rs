//! TLS 1.2 and 1.3 by rustls. The certificate is read again when a file of it changes.

use crate::panic::lock;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Acceptor {
    /// The certificate chain, and its key.
    files: [String; 2],
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    looked: Instant,
    changed: [Option<SystemTime>; 2],
}

impl Acceptor {
    /// Errors: what is wrong with the files.
    pub fn open(cert_file: &str, key_file: &str) -> Result<Self, String> {
        let files = [cert_file.to_owned(), key_file.to_owned()];
        let current = Current { changed: changed(&files), config: read(&files)?, looked: Instant::now() };
        Ok(Self { files, current: Mutex::new(current) })
    }

    pub fn connection(&self) -> io::Result<ServerConnection> {
        if let Some(known) = self.is_due() {
            let changed = changed(&self.files);
            // Half of a new pair does not fit, and is looked at again with the other half.
            match (changed != known).then(|| read(&self.files)) {
                Some(Ok(config)) => {
                    *lock(&self.current) = Current { config, looked: Instant::now(), changed }
                }
                Some(Err(reason)) => log::error!(reason = reason.as_str(); "certificate kept as it was"),
                None => {}
            }
        }
        let config = Arc::clone(&lock(&self.current).config);
        ServerConnection::new(config).map_err(io::Error::other)
    }

    /// When the files are to be looked at: what is known of them. One caller gets it, and looks
    /// without the lock.
    fn is_due(&self) -> Option<[Option<SystemTime>; 2]> {
        let mut current = lock(&self.current);
        let is_due = current.looked.elapsed() >= LOOK_INTERVAL;
        is_due.then(|| {
            current.looked = Instant::now();
            current.changed
        })
    }
}

fn changed(files: &[String; 2]) -> [Option<SystemTime>; 2] {
    [0, 1].map(|index| std::fs::metadata(files.get(index)?).and_then(|data| data.modified()).ok())
}

fn read([cert_file, key_file]: &[String; 2]) -> Result<Arc<ServerConfig>, String> {
    let wrong = |file: &str, error: &dyn std::fmt::Display| format!("{file}: {error}");
    let certs = CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect);
    let certs: Vec<_> = certs.map_err(|error| wrong(cert_file, &error))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| wrong(key_file, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|config| config.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| wrong(cert_file, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
