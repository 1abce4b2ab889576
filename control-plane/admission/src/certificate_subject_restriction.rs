//! CertificateSubjectRestriction: the signer of client certificates makes
//! nobody a member of system:masters.

use triarch_api::status::Status;
use triarch_kinds::csr;
use triarch_kinds::value::str_at;
use triarch_registry::{Attributes, Operation};

use crate::{Plugin, forbidden, is};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

pub struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, attrs: &Attributes<'_>) -> Result<(), Status> {
        if !is(attrs, "certificates.k8s.io", "certificatesigningrequests") || attrs.operation != Operation::Create {
            return Ok(());
        }
        let Some(request) = attrs.object().filter(|v| str_at(v, &["spec", "signerName"]) == SIGNER) else {
            return Ok(());
        };
        let groups = csr::organizations(str_at(request, &["spec", "request"]))
            .map_err(|e| forbidden(attrs, format!("failed to parse CSR: {e}")))?;
        if groups.iter().any(|g| g == MASTERS) {
            return Err(forbidden(attrs, format!("use of {SIGNER} signer with {MASTERS} group is not allowed")));
        }
        Ok(())
    }
}
