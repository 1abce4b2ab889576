//! IP addresses as Endpoints, EndpointSlices and Services may name them.

use std::net::IpAddr;

use triarch_api::names;
use triarch_api::status::ErrorList;

use crate::field::{self, Path};

pub fn valid(errs: &mut ErrorList, p: &Path, address: &str) -> bool {
    let messages = names::ip(address);
    let ok = messages.is_empty();
    field::invalid_each(errs, p, address, messages);
    ok
}

/// Neither unspecified, loopback nor link-local.
pub fn not_special(errs: &mut ErrorList, p: &Path, address: &str) {
    let Ok(ip) = address.parse::<IpAddr>() else {
        field::invalid(errs, p, address, "must be a valid IP address");
        return;
    };
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        field::invalid(errs, p, address, format!("may not be unspecified ({address})"));
    }
    if ip.is_loopback() {
        field::invalid(errs, p, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        field::invalid(errs, p, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        field::invalid(errs, p, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused_by_range() {
        for (address, count) in
            [("10.0.0.1", 0), ("127.0.0.1", 1), ("169.254.1.1", 1), ("224.0.0.5", 1), ("0.0.0.0", 1), ("ff02::1", 1)]
        {
            let mut errs = ErrorList::new();
            not_special(&mut errs, &Path::new("ip"), address);
            assert_eq!(errs.len(), count, "{address}: {errs}");
        }
    }
}
