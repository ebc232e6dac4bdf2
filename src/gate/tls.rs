//! HTTPS: TLS 1.2 and 1.3 by rustls. A second after the certificate's files have changed, new connections use
//! the new certificate.

use super::x509::{Chain, Complaint};
use crate::watched::Watched;
use jiff::Timestamp;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use std::sync::Arc;
use std::{fs, io};

/// A PEM file, as it was read.
#[derive(PartialEq)]
struct PemFile {
    path: String,
    content: Vec<u8>,
}

/// The certificate that the service presents to clients, and its key. Both are read again when their files
/// change.
pub struct Certificate(Arc<Watched<(PemFile, PemFile), Loaded>>);

/// The parsed content of the two files.
struct Loaded {
    config: Arc<ServerConfig>,
    chain_file: String,
    /// The dates and names in the certificates, or why they cannot be read.
    chain: Result<Chain, String>,
}

impl Certificate {
    /// Reads the files of a certificate chain and of its key. None if no files are configured. Errors: the files
    /// cannot be used. A certificate that clients refuse for its dates or names is not an error: the service
    /// uses it, and logs that clients refuse it.
    pub fn open(files: Option<(String, String)>) -> Result<Option<Self>, String> {
        let Some((chain, key)) = files else {
            return Ok(None);
        };
        let read = move || Ok((read("TLS_CERT_FILE", &chain)?, read("TLS_KEY_FILE", &key)?));
        let watched = Watched::open("certificate", read()?, Box::new(read), load)?;
        Ok(Some(Self(watched)))
    }

    /// Starts the thread that reads the files again when they change. Errors: the thread cannot be started.
    pub fn follow(&self) -> io::Result<()> {
        self.0.follow()
    }

    /// The server's side of a new TLS connection. The first read does the handshake.
    pub fn connection(&self) -> io::Result<ServerConnection> {
        ServerConnection::new(Arc::clone(&self.0.current().config)).map_err(io::Error::other)
    }

    /// The earliest expiry among the certificates of the chain. None if the dates cannot be read.
    pub fn expiry(&self) -> Option<Timestamp> {
        self.0.current().chain.as_ref().ok()?.expiry()
    }

    /// The reasons for which clients refuse the certificate now, or will refuse it soon. Each names the file.
    pub fn complaints(&self) -> Vec<Complaint> {
        self.0.current().complaints()
    }
}

impl Loaded {
    fn complaints(&self) -> Vec<Complaint> {
        let complaints = match &self.chain {
            Ok(chain) => chain.complaints(Timestamp::now()),
            Err(reason) => vec![Complaint::Error(reason.clone())],
        };
        let named = |text: String| format!("TLS_CERT_FILE: {:?}: {text}", self.chain_file);
        let complaints = complaints.into_iter().map(|complaint| match complaint {
            Complaint::Error(text) => Complaint::Error(named(text)),
            Complaint::Warning(text) => Complaint::Warning(named(text)),
        });
        complaints.collect()
    }
}

fn read(variable: &str, file: &str) -> Result<PemFile, String> {
    let content = fs::read(file).map_err(|error| {
        format!("{variable}: {file:?} cannot be read: {error}; give a file that this user may read")
    })?;
    Ok(PemFile { path: file.to_owned(), content })
}

/// Parses the two files. At the start and after each renewal, also logs why clients refuse the certificate or
/// will refuse it soon. Only `serve` has a log, so the other commands print nothing here.
fn load((chain, key): &(PemFile, PemFile)) -> Result<Loaded, String> {
    let (chain_file, key_file) = (&chain.path, &key.path);
    let chain =
        certificates(&chain.content).map_err(|text| format!("TLS_CERT_FILE: {chain_file:?} {text}"))?;
    // The library's own error message is not used, because it may contain a line of the key's file.
    let key = PrivateKeyDer::from_pem_slice(&key.content)
        .map_err(|_| format!("TLS_KEY_FILE: {key_file:?} {}", why_no_key(&key.content)))?;
    let parsed = Chain::parse(&chain);
    let config = config(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "TLS_CERT_FILE, TLS_KEY_FILE: {key_file:?} is not the key of the first certificate in {chain_file:?}"
        ),
        rustls::Error::InvalidCertificate(error) => format!(
            "TLS_CERT_FILE: {chain_file:?} cannot be used ({error}); \
             it must be of X.509 version 3, with a subjectAltName"
        ),
        error => format!("TLS_CERT_FILE, TLS_KEY_FILE: {chain_file:?}, {key_file:?}: {error}"),
    })?;
    let loaded = Loaded { config: Arc::new(config), chain_file: chain_file.clone(), chain: parsed };
    for complaint in loaded.complaints() {
        match complaint {
            Complaint::Error(reason) => {
                log::error!(reason = reason.as_str(); "clients refuse the certificate")
            }
            Complaint::Warning(reason) => {
                log::warn!(reason = reason.as_str(); "the certificate expires soon")
            }
        }
    }
    Ok(loaded)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) if has_text(pem, "PRIVATE KEY-----") => {
            Err("holds a key and no certificate: TLS_CERT_FILE and TLS_KEY_FILE may be swapped")
        }
        Ok(_) if has_text(pem, "BEGIN CERTIFICATE REQUEST-----") => {
            Err("holds the request for a certificate; give the certificate that was issued for it")
        }
        Ok(_) => Err("holds no certificate in PEM (BEGIN CERTIFICATE)"),
        Err(_) => Err("is not well-formed PEM"),
    }
}

fn why_no_key(pem: &[u8]) -> &'static str {
    // The second text marks the older form, which PEM itself encrypts (RFC 1421 section 4.6.1.1).
    if has_text(pem, "BEGIN ENCRYPTED PRIVATE KEY-----") || has_text(pem, "Proc-Type: 4,ENCRYPTED") {
        "holds an encrypted key; give it decrypted, as openssl pkey -in FILE writes it"
    } else if has_text(pem, "BEGIN CERTIFICATE-----") {
        "holds a certificate and no key: TLS_CERT_FILE and TLS_KEY_FILE may be swapped"
    } else {
        "holds no usable key in PEM (BEGIN PRIVATE KEY, BEGIN EC PRIVATE KEY or BEGIN RSA PRIVATE KEY)"
    }
}

fn has_text(pem: &[u8], text: &str) -> bool {
    pem.windows(text.len()).any(|window| window == text.as_bytes())
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each client keeps its own session as an encrypted ticket (RFC 5077, RFC 8446 section 4.6.1), so that any
    // number of clients can resume their sessions. The key that encrypts the tickets is only in memory; rustls
    // replaces it when it is used after more than six hours. Early data is not accepted, so a request always
    // comes after the handshake.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
