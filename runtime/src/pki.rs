//! The cluster's authority, the certificates it issues, and the tokens by which machines join.
//!
//! One authority per cluster signs every certificate (X.509, ECDSA P-256). A certificate says what its holder may be: it carries the
//! DNS names `<role>.cairn` and `<label>.<role>.cairn`, where the label stands for the holder's name ([`names`]), and only
//! masters and chunkservers may use theirs as servers. A joining machine makes its own key; the authority sees the public half only.
//!
//! Keys come from the operating system's randomness, so nothing here is for the simulated world.

pub mod names;
pub mod token;

pub use token::{Token, TokenError};

use cairn_common::time::Timestamp;
use cairn_common::wire::master::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::time::Duration;

/// How long certificates are valid. There is no renewal yet, so they must outlive the hardware.
const VALID_FOR: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How far before their making they are valid already: clocks of joining machines differ.
const VALID_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Longest public key that is looked at (an RSA key of 16,384 bits has about 2,100).
const PUBLIC_KEY_BYTES_MAX: usize = 4096;

/// Why there is no key or certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    #[error("the name {name:?} cannot stand in a certificate: {reason}; choose a shorter one of letters, digits and hyphens")]
    Name { name: String, reason: &'static str },
    #[error("the public key cannot be certified: {0}")]
    PublicKey(String),
    #[error("the cluster's authority is not usable: {0}; restore its certificate and key from a backup")]
    Authority(String),
    #[error("no key could be made: {0}")]
    Key(String),
}

/// What signs the certificates of a cluster.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes the authority of a new cluster.
    pub fn create(now: Timestamp) -> Result<Self, PkiError> {
        let key = new_key_pair()?;
        let mut params = certificate_params("CairnFS cluster authority", now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|error| PkiError::Key(error.to_string()))?;
        Self::load(certificate.der().clone(), key)
    }

    /// The authority of an existing cluster, from what [`certificate_der`](Self::certificate_der) and
    /// [`private_key_der`](Self::private_key_der) gave.
    pub fn from_der(certificate: &[u8], private_key: &[u8]) -> Result<Self, PkiError> {
        let key = PrivatePkcs8KeyDer::from(private_key);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| PkiError::Authority(format!("its private key does not parse ({error})")))?;
        Self::load(CertificateDer::from(certificate.to_vec()), key)
    }

    fn load(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, PkiError> {
        let holds = webpki::EndEntityCert::try_from(&certificate)
            .map(|parsed| parsed.subject_public_key_info().as_ref() == key.subject_public_key_info())
            .map_err(|error| PkiError::Authority(format!("its certificate does not parse ({error})")))?;
        if !holds {
            return Err(PkiError::Authority("its certificate and its private key do not belong together".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| PkiError::Authority(format!("its certificate does not parse ({error})")))?;
        Ok(Self { certificate, issuer })
    }

    /// What every member trusts.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// PKCS#8. Whoever has this is the cluster.
    pub fn private_key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// What a join token names this authority by.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// A certificate (DER) that lets the holder of a key be `role` under `name`. The caller has checked that it may.
    pub fn issue(&self, role: Role, name: &str, public_key_spki_der: &[u8], now: Timestamp) -> Result<Vec<u8>, PkiError> {
        if public_key_spki_der.len() > PUBLIC_KEY_BYTES_MAX {
            return Err(PkiError::PublicKey(format!("it has {} bytes, {PUBLIC_KEY_BYTES_MAX} are allowed", public_key_spki_der.len())));
        }
        let refuse = |error: rcgen::Error| PkiError::PublicKey(error.to_string());
        let public_key = SubjectPublicKeyInfo::from_der(public_key_spki_der).map_err(refuse)?;
        let mut params = certificate_params(&format!("CairnFS {role}"), now);
        params.subject_alt_names = CertificateParams::new(names::dns_names(role, name)?).map_err(refuse)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes(role);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&public_key, &self.issuer).map_err(refuse)?;
        Ok(certificate.der().to_vec())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", blake3::Hash::from(self.fingerprint()))
    }
}

/// The BLAKE3 hash of an authority's certificate (DER).
pub fn fingerprint(authority_certificate: &[u8]) -> [u8; 32] {
    *blake3::hash(authority_certificate).as_bytes()
}

/// A fresh key of a machine.
pub struct NewKey {
    /// PKCS#8; stays on the machine.
    pub private_key_der: Vec<u8>,
    /// SubjectPublicKeyInfo; goes to the authority.
    pub public_key_spki_der: Vec<u8>,
}

/// Makes the key of a machine that joins.
pub fn generate_key() -> Result<NewKey, PkiError> {
    let key = new_key_pair()?;
    Ok(NewKey { private_key_der: key.serialize_der(), public_key_spki_der: key.subject_public_key_info() })
}

fn new_key_pair() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| PkiError::Key(error.to_string()))
}

fn certificate_params(common_name: &str, now: Timestamp) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = Duration::from_secs(u64::try_from(now.parts().0).unwrap_or(0));
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch.saturating_sub(VALID_BEFORE);
    params.not_after = epoch + since_epoch + VALID_FOR;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// Servers call each other, so they are clients too; a client is never a server.
fn purposes(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Master | Role::Chunkserver => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

#[cfg(test)]
mod tests {
    use super::{Authority, PkiError, fingerprint, generate_key, names};
    use cairn_common::time::Timestamp;
    use cairn_common::wire::master::Role;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use std::time::Duration;
    use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

    const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
    const DAY: i64 = 24 * 3600 * 1_000_000_000;

    /// Whether `certificate` counts as signed by `authority` for a purpose at a time, as TLS checks it.
    fn is_valid(authority: &Authority, certificate: &[u8], usage: KeyUsage, at: Timestamp) -> bool {
        let (root, leaf) = (CertificateDer::from(authority.certificate_der()), CertificateDer::from(certificate));
        let anchor = anchor_from_trusted_cert(&root).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.parts().0 as u64));
        let parsed = EndEntityCert::try_from(&leaf).unwrap();
        parsed.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], at, usage, None, None).is_ok()
    }

    #[test]
    fn certificates_verify_for_what_their_role_may_do() {
        let authority = Authority::create(NOW).unwrap();
        for (role, serves) in [(Role::Master, true), (Role::Chunkserver, true), (Role::Client, false)] {
            let key = generate_key().unwrap();
            let certificate = authority.issue(role, "node-1", &key.public_key_spki_der, NOW).unwrap();
            assert!(is_valid(&authority, &certificate, KeyUsage::client_auth(), NOW));
            assert_eq!(is_valid(&authority, &certificate, KeyUsage::server_auth(), NOW), serves, "{role}");
            assert_eq!(names::member(&certificate), Some((role, "node-1".to_owned())));
        }
    }

    #[test]
    fn certificates_of_another_authority_do_not_verify() {
        let (ours, theirs) = (Authority::create(NOW).unwrap(), Authority::create(NOW).unwrap());
        let key = generate_key().unwrap();
        let certificate = theirs.issue(Role::Client, "mallory", &key.public_key_spki_der, NOW).unwrap();
        assert!(!is_valid(&ours, &certificate, KeyUsage::client_auth(), NOW));
        assert_ne!(ours.fingerprint(), theirs.fingerprint());
    }

    #[test]
    fn a_member_cannot_sign_certificates() {
        let authority = Authority::create(NOW).unwrap();
        let key = generate_key().unwrap();
        let member = authority.issue(Role::Master, "m", &key.public_key_spki_der, NOW).unwrap();
        let impostor = Authority::from_der(&member, &key.private_key_der).unwrap();
        let victim = generate_key().unwrap();
        let forged = impostor.issue(Role::Master, "forged", &victim.public_key_spki_der, NOW).unwrap();
        let (root, leaf, middle) =
            (CertificateDer::from(authority.certificate_der()), CertificateDer::from(forged), CertificateDer::from(member));
        let at = UnixTime::since_unix_epoch(Duration::from_secs(NOW.parts().0 as u64));
        let anchor = anchor_from_trusted_cert(&root).unwrap();
        let parsed = EndEntityCert::try_from(&leaf).unwrap();
        let (anchors, middles) = ([anchor], [middle]);
        let usage = KeyUsage::server_auth();
        assert!(parsed.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &middles, at, usage, None, None).is_err());
    }

    #[test]
    fn certificates_are_valid_from_a_little_before_to_many_years_after() {
        let authority = Authority::create(NOW).unwrap();
        let key = generate_key().unwrap();
        let certificate = authority.issue(Role::Client, "c", &key.public_key_spki_der, NOW).unwrap();
        let at = |days: i64| Timestamp::from_nanos(NOW.nanos() + days * DAY);
        for (when, valid) in [(at(-2), false), (at(0), true), (at(19 * 365), true), (at(21 * 365), false)] {
            assert_eq!(is_valid(&authority, &certificate, KeyUsage::client_auth(), when), valid, "{when:?}");
        }
    }

    #[test]
    fn an_authority_comes_back_from_its_files() {
        let first = Authority::create(NOW).unwrap();
        let again = Authority::from_der(first.certificate_der(), first.private_key_der()).unwrap();
        assert_eq!(again.fingerprint(), fingerprint(first.certificate_der()));
        let key = generate_key().unwrap();
        let certificate = again.issue(Role::Client, "c", &key.public_key_spki_der, NOW).unwrap();
        assert!(is_valid(&first, &certificate, KeyUsage::client_auth(), NOW));
        let other = Authority::create(NOW).unwrap();
        assert!(matches!(Authority::from_der(first.certificate_der(), other.private_key_der()), Err(PkiError::Authority(_))));
        assert!(matches!(Authority::from_der(b"no", b"no"), Err(PkiError::Authority(_))));
    }

    #[test]
    fn nonsense_is_not_certified() {
        let authority = Authority::create(NOW).unwrap();
        for key in [&b""[..], b"nonsense", &[0x30; 5000]] {
            assert!(matches!(authority.issue(Role::Client, "c", key, NOW), Err(PkiError::PublicKey(_))));
        }
        let key = generate_key().unwrap();
        assert!(matches!(authority.issue(Role::Client, &"n".repeat(200), &key.public_key_spki_der, NOW), Err(PkiError::Name { .. })));
    }
}
