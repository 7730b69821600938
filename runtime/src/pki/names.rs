//! How a role and a name stand in a certificate.
//!
//! A name that is a lower-case DNS name stands for itself; any other becomes `x--` and its base32. So two names never look the same, and
//! `member(issue(role, name)) == (role, name)`.

use crate::pki::PkiError;
use cairn_common::wire::master::Role;
use data_encoding::BASE32_NOPAD;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The end of every name; no such top-level domain exists.
const DOMAIN: &str = "cairn";
/// Longest name that stands for itself: with role and domain it must fit in the 253 bytes of DNS.
const NAME_BYTES_MAX: usize = 200;
/// What a label that stands for another name begins with.
const ENCODED: &str = "x--";
/// Longest label of DNS.
const LABEL_BYTES_MAX: usize = 63;
const ROLES: [Role; 3] = [Role::Master, Role::Chunkserver, Role::Client];

/// The name by which a client asks for a server of a role.
pub fn role_name(role: Role) -> String {
    format!("{role}.{DOMAIN}")
}

/// The DNS names of a member's certificate.
pub fn dns_names(role: Role, name: &str) -> Result<[String; 2], PkiError> {
    Ok([role_name(role), format!("{}.{}", encode(name)?, role_name(role))])
}

/// The role and the name of a certificate (DER) that the cluster's authority signed; `None` if it is not a member's.
pub fn member(certificate: &[u8]) -> Option<(Role, String)> {
    let certificate = CertificateDer::from(certificate);
    let parsed = EndEntityCert::try_from(&certificate).ok()?;
    parsed.valid_dns_names().find_map(member_of_dns_name)
}

/// The role of that name, as it is written in certificates and tokens.
pub fn role(text: &str) -> Option<Role> {
    ROLES.into_iter().find(|role| role.to_string() == text)
}

fn member_of_dns_name(dns_name: &str) -> Option<(Role, String)> {
    let (name, role_text) = dns_name.strip_suffix(DOMAIN)?.strip_suffix('.')?.rsplit_once('.')?;
    Some((role(role_text)?, decode(name)?))
}

fn encode(name: &str) -> Result<String, PkiError> {
    let refuse = |reason| Err(PkiError::Name { name: name.chars().take(LABEL_BYTES_MAX).collect(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() <= NAME_BYTES_MAX && name.split('.').all(is_plain_label) {
        return Ok(name.to_owned());
    }
    let label = format!("{ENCODED}{}", BASE32_NOPAD.encode(name.as_bytes()).to_ascii_lowercase());
    if label.len() > LABEL_BYTES_MAX { refuse("it is too long") } else { Ok(label) }
}

fn decode(encoded: &str) -> Option<String> {
    match encoded.strip_prefix(ENCODED) {
        None => Some(encoded.to_owned()),
        Some(base32) => {
            let bytes = BASE32_NOPAD.decode(base32.to_ascii_uppercase().as_bytes()).ok()?;
            String::from_utf8(bytes).ok()
        }
    }
}

fn is_plain_label(label: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(fits)
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.starts_with(ENCODED)
}

#[cfg(test)]
mod tests {
    use super::{decode, dns_names, encode, member_of_dns_name};
    use cairn_common::wire::master::Role;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    #[test]
    fn plain_names_stay_readable() {
        assert_eq!(dns_names(Role::Chunkserver, "node-7").unwrap(), ["chunkserver.cairn", "node-7.chunkserver.cairn"]);
        assert_eq!(encode("node-7.rack-2.example.com").unwrap(), "node-7.rack-2.example.com");
        assert_eq!(encode("Node.7").unwrap(), "x--jzxwizjog4");
        assert_eq!(encode(&"a".repeat(63)).unwrap().len(), 63);
        assert!(encode("").is_err() && encode(&"A".repeat(38)).is_err() && encode(&"a.".repeat(150)).is_err());
    }

    #[test]
    fn only_whole_member_names_count() {
        assert_eq!(member_of_dns_name("n.master.cairn"), Some((Role::Master, "n".to_owned())));
        assert_eq!(member_of_dns_name("client.master.cairn"), Some((Role::Master, "client".to_owned())));
        assert_eq!(member_of_dns_name("a.n.client.cairn"), Some((Role::Client, "a.n".to_owned())));
        for other in ["master.cairn", "cairn", "n.master.cairn.example", "n.king.cairn", "n.mastercairn", "x--1.master.cairn"] {
            assert_eq!(member_of_dns_name(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn names_are_unique_and_reversible(text in "\\PC{1,9}", hostname in "[a-zA-Z0-9._-]{1,30}", plain in "[a-z0-9.-]{1,30}") {
            for wanted in [text, hostname, plain] {
                let encoded = encode(&wanted).unwrap();
                prop_assert!(encoded.split('.').all(|label| (1..=63).contains(&label.len())));
                prop_assert_eq!(decode(&encoded), Some(wanted));
            }
        }
    }
}
