//! HMAC-SHA-256 (RFC 2104).

use sha2::{Digest as _, Sha256};

const BLOCK_BYTES: usize = 64;

/// The code of a message under a key.
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |byte: u8| block.map(|key| key ^ byte);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// Whether two texts are the same, in a time that does not depend on where they differ: what is compared are codes under a key
/// that nobody knows.
#[must_use]
pub fn same(key: &[u8], one: &[u8], other: &[u8]) -> bool {
    hmac_sha256(key, one) == hmac_sha256(key, other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Sha256Sum;

    fn code(key: &[u8], message: &[u8]) -> String {
        hmac_sha256(key, message)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn codes_are_those_of_rfc_4231() {
        assert_eq!(
            code(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            code(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            code(&[0xaa; 20], &[0xdd; 50]),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
        );
        assert_eq!(
            code(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        // A key of a block's length is taken as it is.
        assert_ne!(code(&[1; 64], b"a"), code(Sha256Sum::of(&[1; 64]).as_bytes(), b"a"));
    }

    #[test]
    fn only_the_same_is_the_same() {
        assert!(same(b"key", b"token", b"token"));
        for other in [&b"token1"[..], b"toke", b"Token", b""] {
            assert!(!same(b"key", b"token", other));
        }
    }
}
