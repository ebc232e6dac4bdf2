//! The dates and names in a certificate chain (RFC 5280 section 4.1). The TLS library serves any chain that
//! fits its key. Clients are stricter: this module tells the operator in advance what they will refuse.

use crate::limits::CERTIFICATE_WARNING;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::{Time, Validity};

/// A fault of a certificate chain. The service uses the chain nevertheless.
pub enum Complaint {
    /// Clients refuse the chain.
    Error(String),
    /// Clients will refuse the chain soon.
    Warning(String),
}

/// The facts that clients check in a chain, apart from its signatures.
pub struct Chain {
    /// The validity of each certificate, in the order of the file: the server's own certificate comes first.
    periods: Vec<Period>,
    /// Whether the server's own certificate names a host or an address.
    has_name: bool,
}

/// From when until when a certificate is valid.
struct Period {
    begin: Timestamp,
    end: Timestamp,
}

impl Chain {
    /// Reads the dates and names of all certificates. Errors: a text that names the certificate that cannot be
    /// read.
    pub fn parse(chain: &[CertificateDer]) -> Result<Self, String> {
        let (mut periods, mut has_name) = (Vec::new(), false);
        for (index, der) in chain.iter().enumerate() {
            let unreadable =
                |reason: String| format!("the dates of {} cannot be read: {reason}", name(index));
            let certificate = Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
            let period = Period::of(&certificate.tbs_certificate.validity).map_err(unreadable)?;
            periods.push(period);
            has_name |= index == 0 && names_a_host(&certificate);
        }
        Ok(Self { periods, has_name })
    }

    /// The earliest expiry among the certificates. None for an empty chain.
    pub fn expiry(&self) -> Option<Timestamp> {
        self.periods.iter().map(|period| period.end).min()
    }

    /// The reasons for which clients refuse the chain at `now`, or will refuse it soon.
    pub fn complaints(&self, now: Timestamp) -> Vec<Complaint> {
        let periods = self.periods.iter().enumerate();
        let mut complaints: Vec<_> =
            periods.filter_map(|(index, period)| period.complaint(&name(index), now)).collect();
        if !self.has_name {
            complaints.push(Complaint::Error(
                "the certificate names no host: clients refuse it, because the common name does not count; \
                 get one with a subjectAltName"
                    .to_owned(),
            ));
        }
        complaints
    }
}

impl Period {
    fn of(validity: &Validity) -> Result<Self, String> {
        Ok(Self { begin: timestamp(validity.not_before)?, end: timestamp(validity.not_after)? })
    }

    fn complaint(&self, name: &str, now: Timestamp) -> Option<Complaint> {
        let Self { begin, end } = self;
        if now > *end {
            return Some(Complaint::Error(format!("{name} expired at {end}: clients refuse it; renew it")));
        }
        if now < *begin {
            return Some(Complaint::Error(format!(
                "{name} is not valid before {begin}: clients refuse it until then; is the clock right?"
            )));
        }
        let left = end.duration_since(now);
        let is_near = left.as_secs().unsigned_abs() <= CERTIFICATE_WARNING.as_secs();
        is_near.then(|| {
            let days = left.as_hours() / 24;
            Complaint::Warning(format!("{name} expires at {end}, {days} days from now; renew it"))
        })
    }
}

fn name(index: usize) -> String {
    match index {
        0 => "the certificate".to_owned(),
        _ => format!("certificate {} of the chain", index + 1),
    }
}

fn timestamp(time: Time) -> Result<Timestamp, String> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).map_err(|error| error.to_string())?;
    Timestamp::from_second(seconds).map_err(|error| error.to_string())
}

/// Whether the certificate names a host or an address. Only the subjectAltName counts, because clients look
/// nowhere else for the host (RFC 9525 section 6.3).
fn names_a_host(certificate: &Certificate) -> bool {
    let mut extensions = certificate.tbs_certificate.filter::<SubjectAltName>().flatten();
    let is_host = |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    extensions.any(|(_, names)| names.0.iter().any(is_host))
}
