//! Who believes whom: the rustls settings of both sides.
//!
//! Only TLS 1.3, AES-128-GCM first (ring: 8 GB/s; AES-256 is 10 % and ChaCha20 70 % slower), no resumption: all servers of a role
//! share a TLS name, so a ticket would be offered to the wrong one.

use crate::network::{Identity, Peer, Trust};
use crate::pki;
use cairn_common::wire::PROTOCOL;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Settings for calling others, with the certificate of `identity` if there is one.
pub fn client_config(identity: Option<&Identity>, trust: &Trust) -> Result<Arc<QuicClientConfig>, String> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Authority(authority) => WebPkiServerVerifier::builder_with_provider(roots(authority)?, provider.clone())
            .build()
            .map_err(|error| format!("the certificate of the cluster's authority cannot be used: {error}"))?,
        Trust::Fingerprint(fingerprint) => Arc::new(FingerprintVerifier { fingerprint: *fingerprint, provider: provider.clone() }),
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(chain(identity, trust), key(identity)).map_err(unusable)?,
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(|error| error.to_string())?))
}

/// Settings for being called. Peers without a certificate are let in as [`Peer::Anonymous`]; a wrong certificate is refused.
pub fn server_config(identity: &Identity, trust: &Trust) -> Result<Arc<QuicServerConfig>, String> {
    let Trust::Authority(authority) = trust else {
        return Err("a server needs the certificate of its cluster's authority, not only the fingerprint".to_owned());
    };
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authority)?, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| format!("the certificate of the cluster's authority cannot be used: {error}"))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(identity, trust), key(identity))
        .map_err(unusable)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(|error| error.to_string())?))
}

/// Who the peer of a connection, whose certificate was verified, is. `None` if the certificate is not a member's.
pub fn peer(connection: &quinn::Connection) -> Option<Peer> {
    let Some(certificates) = connection.peer_identity() else {
        return Some(Peer::Anonymous);
    };
    let certificates = certificates.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let (role, name) = pki::names::member(certificates.first()?)?;
    Some(Peer::Member { role, name })
}

/// What a failed handshake says, in the words of this system where that is possible. (Only the text of the error comes through quinn.)
pub fn in_words(reason: &str) -> String {
    let meanings = [
        ("OtherCluster", "it belongs to another cluster"),
        ("UnknownIssuer", "it belongs to another cluster"),
        // All authorities have the same name, so that of another cluster is found by its signature.
        ("BadSignature", "it belongs to another cluster"),
        ("UnknownCA", "it belongs to another cluster"),
        ("not valid for name", "it has another role"),
        ("NotValidForName", "it has another role"),
        ("InvalidPurpose", "it has another role"),
        (
            "expired",
            "its certificate is not valid any more: check the clocks, and if they are right, remove its identity and join again with a new token",
        ),
        ("not valid yet", "its certificate is not valid yet: check the clocks of both machines"),
    ];
    match meanings.into_iter().find(|(mark, _)| reason.contains(mark)) {
        Some((_, meaning)) => meaning.to_owned(),
        None => reason.to_owned(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(provider)
}

fn roots(authority: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from(authority.to_vec());
    roots.add(authority).map_err(|error| format!("the certificate of the cluster's authority does not parse: {error}"))?;
    Ok(Arc::new(roots))
}

/// The certificate and the authority's, for peers that know no more of it than its fingerprint.
fn chain(identity: &Identity, trust: &Trust) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![CertificateDer::from(identity.certificate.clone())];
    if let Trust::Authority(authority) = trust {
        chain.push(CertificateDer::from(authority.clone()));
    }
    chain
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.private_key.clone()))
}

fn unusable(error: rustls::Error) -> String {
    format!("the certificate and key of this machine cannot be used: {error}")
}

/// Believes a server whose chain ends in the authority with this fingerprint, and verifies the rest as usual.
#[derive(Debug)]
struct FingerprintVerifier {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// The presented chain does not end in the authority that the token named.
#[derive(Debug, thiserror::Error)]
#[error("it belongs to another cluster than the token")]
struct OtherCluster;

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let other_cluster = || rustls::Error::from(CertificateError::Other(OtherError(Arc::new(OtherCluster))));
        let (authority, between) = intermediates.split_last().ok_or_else(other_cluster)?;
        if pki::fingerprint(authority) != self.fingerprint {
            return Err(other_cluster());
        }
        let roots = roots(authority).map_err(rustls::Error::General)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, between, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // QUIC has no TLS 1.2, and none is offered.
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
