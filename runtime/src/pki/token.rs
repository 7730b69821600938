//! Join tokens: one line that a person carries from the cluster to a new machine.
//!
//! `cairn-<role>-<base32>`, where the base32 (RFC 4648, lower case, no padding) is the fingerprint of the authority (32 bytes), the secret
//! (16 bytes) and a checksum over role and both (4 bytes). The fingerprint lets the newcomer know the cluster before it gives the secret
//! away; the checksum tells a typing mistake from a refusal. The master keeps only the hash of the secret.

use crate::pki::names;
use cairn_common::wire::master::Role;
use data_encoding::BASE32_NOPAD;
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "cairn-";
const FINGERPRINT_BYTES: usize = 32;
const SECRET_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
const PAYLOAD_BYTES: usize = FINGERPRINT_BYTES + SECRET_BYTES + CHECKSUM_BYTES;
/// Base32 characters of the payload.
const PAYLOAD_CHARS: usize = (PAYLOAD_BYTES * 8).div_ceil(5);
/// Keeps hashes of secrets apart from hashes of anything else.
const SECRET_CONTEXT: &str = "cairn 2026-11-23 join token secret";
const CHECKSUM_CONTEXT: &str = "cairn 2026-11-23 join token checksum";

/// The right to join a cluster once, in one role.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// BLAKE3 of the authority's certificate.
    pub fingerprint: [u8; FINGERPRINT_BYTES],
    pub secret: [u8; SECRET_BYTES],
    pub role: Role,
}

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("this is not a join token: one looks like cairn-chunkserver-..., as `cairn token create` prints it")]
    NotAToken,
    #[error("the token is for the role {0:?}, which does not exist: roles are master, chunkserver and client")]
    UnknownRole(String),
    #[error("the token has {found} characters after its role where {PAYLOAD_CHARS} belong: part of it is missing or was added")]
    Length { found: usize },
    #[error("the token contains a character that no token has: copy it again")]
    Character,
    #[error("the token was mistyped: copy it again")]
    Mistyped,
}

impl Token {
    /// What the master stores instead of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        secret_hash(&self.secret)
    }

    fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT);
        hasher.update(self.role.to_string().as_bytes()).update(&self.fingerprint).update(&self.secret);
        let mut checksum = [0; CHECKSUM_BYTES];
        hasher.finalize_xof().fill(&mut checksum);
        checksum
    }
}

/// The hash of a token's secret, as the master stores it and looks it up.
pub fn secret_hash(secret: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(SECRET_CONTEXT).update(secret).finalize().as_bytes()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = [&self.fingerprint[..], &self.secret, &self.checksum()].concat();
        write!(f, "{PREFIX}{}-{}", self.role, BASE32_NOPAD.encode(&payload).to_ascii_lowercase())
    }
}

/// Without the secret: tokens must not end up in logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} of {})", self.role, blake3::Hash::from(self.fingerprint))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim().to_ascii_lowercase();
        let (role, encoded) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or(TokenError::NotAToken)?;
        let role = names::role(role).ok_or_else(|| TokenError::UnknownRole(role.to_owned()))?;
        let found = encoded.chars().count();
        if found != PAYLOAD_CHARS {
            return Err(TokenError::Length { found });
        }
        let payload = BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).map_err(|error| match error.kind {
            // Bits beyond the last whole byte: the last character is wrong, though it is one that tokens have.
            data_encoding::DecodeKind::Trailing => TokenError::Mistyped,
            _ => TokenError::Character,
        })?;
        let payload: [u8; PAYLOAD_BYTES] = payload.try_into().map_err(|_| TokenError::Mistyped)?;
        let mut token = Token { fingerprint: [0; FINGERPRINT_BYTES], secret: [0; SECRET_BYTES], role };
        let (fingerprint, rest) = payload.split_at(FINGERPRINT_BYTES);
        let (secret, checksum) = rest.split_at(SECRET_BYTES);
        token.fingerprint.copy_from_slice(fingerprint);
        token.secret.copy_from_slice(secret);
        if checksum == token.checksum() { Ok(token) } else { Err(TokenError::Mistyped) }
    }
}

#[cfg(test)]
mod tests {
    use super::{PAYLOAD_CHARS, Token, TokenError};
    use cairn_common::wire::master::Role;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    fn token(role: Role) -> Token {
        Token { fingerprint: std::array::from_fn(|i| i as u8), secret: [0xa5; 16], role }
    }

    #[test]
    fn a_token_is_one_line_that_reads_back() {
        for role in [Role::Master, Role::Chunkserver, Role::Client] {
            let text = token(role).to_string();
            assert!(text.starts_with(&format!("cairn-{role}-")) && !text.contains(char::is_whitespace), "{text}");
            assert_eq!(text.parse(), Ok(token(role)));
            assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(token(role)));
        }
    }

    #[test]
    fn mistakes_are_told_apart() {
        let text = token(Role::Client).to_string();
        assert_eq!("hello".parse::<Token>(), Err(TokenError::NotAToken));
        assert_eq!("".parse::<Token>(), Err(TokenError::NotAToken));
        assert_eq!(text.replace("client", "king").parse::<Token>(), Err(TokenError::UnknownRole("king".to_owned())));
        assert_eq!(text[..text.len() - 1].parse::<Token>(), Err(TokenError::Length { found: PAYLOAD_CHARS - 1 }));
        assert_eq!(text.replace("client", "master").parse::<Token>(), Err(TokenError::Mistyped));
        let mut strange = text;
        strange.pop();
        strange.push('é');
        assert_eq!(strange.parse::<Token>(), Err(TokenError::Character));
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let token = Token { secret: *b"0123456789abcdef", ..token(Role::Client) };
        let shown = format!("{token:?}");
        let encoded = token.to_string();
        assert!(!shown.contains(&encoded[encoded.len() - 30..]) && !shown.contains("0123456789abcdef"));
        assert_ne!(token.secret_hash()[..16], token.secret);
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(fingerprint: [u8; 32], secret: [u8; 16], at in 0..PAYLOAD_CHARS, new in "[a-z2-7]") {
            let token = Token { fingerprint, secret, role: Role::Chunkserver };
            let mut text = token.to_string();
            let at = text.len() - PAYLOAD_CHARS + at;
            let changed = text[at..=at] != new;
            text.replace_range(at..=at, &new);
            prop_assert_eq!(text.parse::<Token>().is_err(), changed);
        }

        #[test]
        fn any_text_is_read_without_harm(text in any::<String>()) {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }
}
