//! TLS to PostgreSQL: libpq's `sslmode` and `sslrootcert`, through rustls
//! (https://www.postgresql.org/docs/current/libpq-ssl.html).
//! Guarantees: no connection is less protected than `DATABASE_URL` asks for. A mode that is not possible is an
//! error. An error names the parameter and never its value, except for a path whose folder exists.

use percent_encoding::percent_decode_str;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct as Signature, Error, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Whether connections are encrypted, according to libpq's `sslmode` and `sslnegotiation`.
#[derive(Clone, Copy, PartialEq)]
pub enum Encryption {
    /// `disable`.
    Disabled,
    /// `prefer`: encrypted if the server supports TLS and the handshake succeeds, plain otherwise.
    Preferred,
    /// `require` and stricter.
    Required,
    /// The same with `sslnegotiation=direct`: the connection begins with the TLS handshake.
    Direct,
}

/// The TLS settings of `DATABASE_URL`: whether to encrypt, and how to verify the server's certificate.
pub struct TlsSettings {
    pub encryption: Encryption,
    pub connector: MakeRustlsConnect,
    verifier: Arc<Verifier>,
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
    /// The protocol version that the first handshake negotiated.
    version: OnceLock<&'static str>,
}

#[derive(Debug)]
enum Trust {
    /// The certificate is not verified.
    Any,
    /// The certificate must come from one of these authorities.
    Chain(RootCertStore),
    /// The certificate must also contain the host's name.
    ChainAndName(RootCertStore),
}

impl TlsSettings {
    /// Reads the TLS parameters of the URL, and returns the URL without those that the driver does not know.
    /// Errors: the name of a parameter, and what is wrong with it.
    pub fn parse(url: &str) -> Result<(Self, String), String> {
        // A password may contain a question mark, so the query is looked for after the first @.
        let (credentials, place) = url.split_at(url.find('@').unwrap_or(0));
        let (place, query) = place.split_once('?').unwrap_or((place, ""));
        let (mut given, mut rest) = (HashMap::new(), Vec::new());
        // Names are decoded too, because the driver would also understand an encoded `sslmode`.
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (decoded(name), decoded(value));
            match (&*name, &*value) {
                // The service does not support GSSAPI encryption, and these two values do not require it.
                ("sslmode" | "sslrootcert", _) | ("gssencmode", "disable" | "prefer") => {}
                _ => rest.push(parameter),
            }
            if given.insert(name.clone(), value).is_some() {
                return Err(format!("{name}: is there twice; give it once"));
            }
        }
        let given = |name| given.get(name).map(AsRef::as_ref);
        let (encryption, trust) = choose(given("sslmode"), given("sslrootcert"))?;
        let algorithms = ring::default_provider().signature_verification_algorithms;
        let verifier = Arc::new(Verifier { trust, algorithms, version: OnceLock::new() });
        let connector = connector(Arc::clone(&verifier))?;
        Ok((Self { encryption, connector, verifier }, format!("{credentials}{place}?{}", rest.join("&"))))
    }

    /// One line for `tinytasks check` about the connections made so far.
    pub fn report(&self, is_encrypted: bool) -> String {
        let checked = match self.verifier.trust {
            Trust::Any => "the server's certificate is not checked",
            Trust::Chain(_) => "the server's certificate is checked, the name in it is not",
            Trust::ChainAndName(_) => "the server's certificate and the name in it are checked",
        };
        match self.verifier.version.get() {
            Some(version) if is_encrypted => format!("encryption: {version}, {checked}"),
            _ => "encryption: none".to_owned(),
        }
    }
}

fn connector(verifier: Arc<Verifier>) -> Result<MakeRustlsConnect, String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("sslmode: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // PostgreSQL 17 and newer require this protocol name with sslnegotiation=direct.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

const VERIFY_CA: &str = "sslmode: anybody can get a certificate of a public authority, so verify-ca needs \
    an authority of your own in sslrootcert; give that, or verify-full";
const UNUSED_ROOT: &str = "sslrootcert: would not be looked at; add sslmode=verify-full";

fn choose(mode: Option<&str>, root: Option<&str>) -> Result<(Encryption, Trust), String> {
    let own = root.filter(|root| *root != "system");
    Ok(match (mode, root, own) {
        (Some("disable"), None, _) => (Encryption::Disabled, Trust::Any),
        (None | Some("prefer"), None, _) => (Encryption::Preferred, Trust::Any),
        (Some("require"), None, _) => (Encryption::Required, Trust::Any),
        (Some("require" | "verify-ca"), _, Some(file)) => (Encryption::Required, Trust::Chain(read(file)?)),
        (Some("verify-full"), _, Some(file)) => (Encryption::Required, Trust::ChainAndName(read(file)?)),
        (Some("verify-full"), _, None) | (None, Some("system"), _) => {
            (Encryption::Required, Trust::ChainAndName(system()?))
        }
        (Some("verify-ca"), ..) => return Err(VERIFY_CA.to_owned()),
        (None | Some("disable" | "prefer" | "require"), ..) => return Err(UNUSED_ROOT.to_owned()),
        _ => return Err("sslmode: give disable, prefer, require, verify-ca or verify-full".to_owned()),
    })
}

fn read(file: &str) -> Result<RootCertStore, String> {
    let certs = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let name = shown(file);
    let wanted = "give a file in PEM with the authority's certificate, which this user may read";
    let certs = certs.map_err(|error| format!("sslrootcert: {name} cannot be read: {error}; {wanted}"))?;
    let mut roots = RootCertStore::empty();
    for cert in certs {
        roots.add(cert).map_err(|error| {
            format!("sslrootcert: a certificate in {name} cannot be used: {error}; {wanted}")
        })?;
    }
    let none = format!("sslrootcert: {name} has no certificate; {wanted}");
    if roots.is_empty() { Err(none) } else { Ok(roots) }
}

/// The path of a file for a message; or the words "the file" if the path's folder does not exist, because the
/// text may then be a misplaced password.
fn shown(file: &str) -> String {
    let folder = Path::new(file).parent().filter(|folder| folder.parent().is_some() && folder.is_dir());
    folder.map_or_else(|| "the file".to_owned(), |_| format!("{file:?}"))
}

/// The authorities that the operating system trusts (`ca-certificates`), or `SSL_CERT_FILE`.
fn system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let none = "sslrootcert: this system has no root certificates; install ca-certificates or give a file";
    if roots.is_empty() { Err(none.to_owned()) } else { Ok(roots) }
}

type Signed = Result<HandshakeSignatureValid, Error>;

/// With `Trust::Any` the certificate is not read, and the handshake's signature is not verified. Verifying it
/// would prove nothing, because anybody can present some certificate and sign with its key. And webpki cannot
/// read certificates of X.509 version 1, which servers that were set up by hand often have.
impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer,
        intermediates: &[CertificateDer],
        name: &ServerName,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Trust::Chain(roots) | Trust::ChainAndName(roots) = &self.trust {
            let cert = ParsedCertificate::try_from(cert).map_err(|error| {
                Error::General(format!(
                    "the server's certificate cannot be verified ({error}): it must be of X.509 version 3; \
                     give the server such a one, or take sslmode=require, which does not look at it"
                ))
            })?;
            let known = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, known)?;
            if let Trust::ChainAndName(_) = &self.trust {
                verify_server_name(&cert, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer, by: &Signature) -> Signed {
        self.version.get_or_init(|| "TLS 1.2");
        match self.trust {
            Trust::Any => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls12_signature(message, cert, by, &self.algorithms),
        }
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer, by: &Signature) -> Signed {
        self.version.get_or_init(|| "TLS 1.3");
        match self.trust {
            Trust::Any => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls13_signature(message, cert, by, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
