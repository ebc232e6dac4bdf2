//! HTTPS: TLS 1.2 and 1.3 by rustls. New connections use a renewed certificate within a second.

use crate::watched::Watched;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ServerConfig, ServerConnection};
use std::sync::Arc;
use std::{fs, io};

/// A file and its content.
type Pem = (String, Vec<u8>);

/// The certificate that clients are shown, and its key. Follows the files of both.
pub struct Certificate(Watched<(Pem, Pem), ServerConfig>);

impl Certificate {
    /// From the files of a certificate chain and of its key, where they are configured. Errors: what
    /// is wrong with the files.
    pub fn open(files: Option<(String, String)>) -> Result<Option<Self>, String> {
        let Some((chain, key)) = files else {
            return Ok(None);
        };
        let read = move || Ok((read("TLS_CERT_FILE", &chain)?, read("TLS_KEY_FILE", &key)?));
        let watched = Watched::open("certificate", read()?, Box::new(read), config)?;
        Ok(Some(Self(watched)))
    }

    /// The server's side of a new TLS connection. The handshake comes with the first read.
    pub fn connection(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(self.0.current()).map_err(io::Error::other)
    }
}

fn read(variable: &str, file: &str) -> Result<Pem, String> {
    let content = fs::read(file).map_err(|error| format!("{variable}: {file:?} cannot be read: {error}"))?;
    Ok((file.to_owned(), content))
}

fn config(((chain_file, chain), (key_file, key)): &(Pem, Pem)) -> Result<ServerConfig, String> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let certs = certs.map_err(|error| format!("TLS_CERT_FILE: {chain_file:?}: {error}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("TLS_KEY_FILE: {key_file:?}: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|config| config.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| format!("TLS_CERT_FILE, TLS_KEY_FILE: {chain_file:?}: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
