//! `tinytasks healthcheck`: asks the running service for `/health` at its own address. With HTTPS, it accepts
//! only the service's own certificate, whatever names that contains.

use super::print;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::gate::Address;
use crate::limits::{HEALTH_ANSWER_BYTES_MAX, HEALTHCHECK_TIMEOUT};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use socket2::{Socket, Type};
use std::io::{Read, Write};
use std::sync::Arc;

const REQUEST: &[u8] =
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: healthcheck\r\nConnection: close\r\n\r\n";

/// `tinytasks healthcheck`.
pub fn healthcheck() -> Result<(), Failure> {
    let config = config::load()?;
    let is_unknown = config.listen.as_socket().is_some_and(|address| address.port() == 0);
    if is_unknown {
        return Err(Failure::of_configuration(
            "PORT: is 0, so nobody knows it; give the service a port".to_owned(),
        ));
    }
    let answer =
        ask(&config).map_err(|reason| format!("{reason}; is the service running, at this HOST and PORT?"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let is_healthy = head.starts_with("HTTP/1.1 200 ");
    print(&format!("{}\n", body.trim_end()))?;
    if is_healthy { Ok(()) } else { Err(Failure::SILENT) }
}

/// The answer of the service to `GET /health`. Errors: nothing answers there in time, or another program does.
pub fn ask(config: &Config) -> Result<String, String> {
    let name = Address::name(&config.listen);
    let answer = exchange(config).map_err(|error| format!("{name}: {error}"))?;
    let is_ours = answer.starts_with("HTTP/1.1 ") && answer.contains("\"service\":\"tinytasks\"");
    if is_ours { Ok(answer) } else { Err(format!("{name}: something else than tinytasks answers there")) }
}

fn exchange(config: &Config) -> Result<String, Box<dyn std::error::Error>> {
    // Linux treats the unspecified address (`0.0.0.0` or `::`) as the loopback address.
    let socket = Socket::new(config.listen.domain(), Type::STREAM, None)?;
    socket.connect_timeout(&config.listen, HEALTHCHECK_TIMEOUT)?;
    socket.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    socket.set_write_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    let mut answer = Vec::new();
    match &config.tls {
        None => read_answer(socket, &mut answer)?,
        Some((certificate, _)) => {
            let connection = ClientConnection::new(client(certificate)?, ServerName::try_from("localhost")?)?;
            read_answer(StreamOwned::new(connection, socket), &mut answer)?;
        }
    }
    Ok(String::from_utf8(answer)?)
}

fn read_answer(mut stream: impl Read + Write, answer: &mut Vec<u8>) -> std::io::Result<()> {
    stream.write_all(REQUEST)?;
    stream.take(HEALTH_ANSWER_BYTES_MAX).read_to_end(answer).map(drop)
}

fn client(certificate: &str) -> Result<Arc<ClientConfig>, Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = CertificateDer::from_pem_file(certificate)?;
    let verifier = OwnCertificate { own, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Accepts only the certificate in `TLS_CERT_FILE`. Its chain, names and dates are not checked: this command must
/// find out whether the service answers, not whether browsers trust it.
#[derive(Debug)]
struct OwnCertificate {
    own: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OwnCertificate {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if certificate.as_ref() == self.own.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("the certificate is not that of TLS_CERT_FILE".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
