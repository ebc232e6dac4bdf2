//! HTTPS: TLS 1.2 and 1.3 by rustls. New connections use a renewed certificate within a second.

use crate::watched::{NameAndBytes, Watched};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection};
use std::io;
use std::sync::Arc;

/// The certificate that clients are shown, and its key.
pub struct Certificate(Watched<ServerConfig>);

impl Certificate {
    /// From the files of a certificate chain and of its key, where they are configured. Errors: what
    /// is wrong with the files.
    pub fn open(files: Option<(String, String)>) -> Result<Option<Self>, String> {
        let open = |(chain, key)| Watched::open("certificate", vec![chain, key], config).map(Self);
        files.map(open).transpose().map_err(|reason| format!("TLS_CERT_FILE, TLS_KEY_FILE: {reason}"))
    }

    /// The server's side of a new TLS connection. The handshake comes with the first read.
    pub fn connection(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(self.0.current(false)).map_err(io::Error::other)
    }
}

/// Errors: which file is wrong, and how.
fn config(files: &[NameAndBytes]) -> Result<ServerConfig, String> {
    let (chain_file, chain) = files.first().ok_or("there is no certificate")?;
    let (key_file, key) = files.last().ok_or("there is no key")?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let certs = certs.map_err(|error| format!("{chain_file}: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("{key_file}: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|config| config.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| format!("{chain_file}: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
