//! What a PKCS #10 request asks for.

use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

/// Bytes of a request that are looked at.
const MAX: usize = 64 * 1024;

/// A parsed request whose own signature holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    /// E-mail addresses, URIs and other names.
    pub others: usize,
}

/// Parses PEM; the error says what is wrong with it.
pub fn parse(pem: &[u8]) -> Result<Request, String> {
    if pem.len() > MAX {
        return Err("the request is too large".into());
    }
    let (_, block) = parse_x509_pem(pem).map_err(|e| format!("not PEM: {e}"))?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    }
    let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|e| format!("not a request: {e}"))?;
    csr.verify_signature().map_err(|e| format!("the request's signature does not hold: {e}"))?;
    let subject = &csr.certification_request_info.subject;
    let mut out = Request {
        common_name: subject.iter_common_name().filter_map(|a| a.as_str().ok()).next().unwrap_or_default().to_owned(),
        organizations: subject.iter_organization().filter_map(|a| a.as_str().ok()).map(str::to_owned).collect(),
        ..Request::default()
    };
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(n) => out.dns.push((*n).to_owned()),
                GeneralName::IPAddress(b) => match (<[u8; 4]>::try_from(*b), <[u8; 16]>::try_from(*b)) {
                    (Ok(v4), _) => out.ips.push(v4.into()),
                    (_, Ok(v6)) => out.ips.push(v6.into()),
                    _ => out.others += 1,
                },
                _ => out.others += 1,
            }
        }
    }
    Ok(out)
}

impl Request {
    /// The node that the subject names, when it is a kubelet's.
    pub fn node(&self) -> Option<&str> {
        let node = self.common_name.strip_prefix("system:node:").filter(|n| !n.is_empty())?;
        (self.organizations == ["system:nodes"]).then_some(node)
    }

    pub fn has_alt_names(&self) -> bool {
        !self.dns.is_empty() || !self.ips.is_empty() || self.others > 0
    }
}

/// Whether `usages` are all of `required` and none but those and key encipherment.
pub fn usages_are(usages: &[String], required: &[&str]) -> bool {
    required.iter().all(|r| usages.iter().any(|u| u == r))
        && usages.iter().all(|u| required.contains(&u.as_str()) || u == "key encipherment")
}
