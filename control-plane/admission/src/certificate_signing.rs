//! CertificateSigning: who issues a certificate for a request, or fails it,
//! must be allowed to `sign` for its signer.

use triarch_kinds::value::{at, same};
use triarch_registry::{Attributes, Operation};

use crate::{Plugin, Requirement, forbidden, request_view, signer, signer_requirement};

pub struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn requires(&self, attrs: &Attributes<'_>) -> Option<Requirement> {
        if !request_view(attrs, "status") || attrs.operation != Operation::Update {
            return None;
        }
        let (new, old) = (attrs.object()?, attrs.old?);
        let unchanged =
            ["certificate", "conditions"].iter().all(|f| same(at(new, &["status", f]), at(old, &["status", f])));
        if unchanged {
            return None;
        }
        let signer = signer(old);
        let why = format!("user not permitted to sign requests with signerName {signer:?}");
        Some(signer_requirement("sign", signer, forbidden(attrs, why)))
    }
}
