//! CertificateApproval: who approves or denies a certificate request must be
//! allowed to `approve` its signer.

use triarch_registry::{Attributes, Operation};

use crate::{Plugin, Requirement, forbidden, request_view, signer, signer_requirement};

pub struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn requires(&self, attrs: &Attributes<'_>) -> Option<Requirement> {
        if !request_view(attrs, "approval") || attrs.operation != Operation::Update {
            return None;
        }
        // The stored signer: an approval cannot smuggle in another.
        let signer = signer(attrs.old?);
        let why = format!("user not permitted to approve requests with signerName {signer:?}");
        Some(signer_requirement("approve", signer, forbidden(attrs, why)))
    }
}
