//! One encoding for everything that is stored or sent: postcard, bounded by the caller's limit.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes that do not decode as what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes do not decode as {what}: {reason}")]
pub struct DecodeError {
    pub what: &'static str,
    pub bytes: usize,
    pub reason: String,
}

/// Encodes a value. Encoding to memory can fail only by a bug in a `Serialize` implementation, hence no error.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data always encodes")
}

/// Decodes exactly one value; left-over bytes are an error, for they mean that the two sides disagree on the format.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    let fail = |reason: String| DecodeError { what, bytes: bytes.len(), reason };
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|error| fail(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(fail(format!("{} bytes are left over", rest.len()))) }
}
