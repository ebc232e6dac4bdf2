//! TLS 1.2 and 1.3 by rustls. A renewed certificate is taken over by itself.

use crate::watched::{NameAndBytes, Watched};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection};
use std::io;
use std::sync::Arc;

pub struct Acceptor(Watched<ServerConfig>);

impl Acceptor {
    /// With the files of a certificate chain and of its key, where there are any. Errors: what is
    /// wrong with them.
    pub fn open(files: Option<(String, String)>) -> Result<Option<Self>, String> {
        let open = |(chain, key)| Watched::open("certificate", vec![chain, key], config).map(Self);
        files.map(open).transpose().map_err(|reason| format!("TLS_CERT_FILE, TLS_KEY_FILE: {reason}"))
    }

    pub fn connection(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(self.0.current(false)).map_err(io::Error::other)
    }
}

/// From the certificate chain, and its key.
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
