//! The stub's image: position-independent code to be placed, readable and executable, anywhere.
//!
//! Its first instruction is a *gate*: a `syscall` instruction for the injector's own calls. A `clone` made there, with
//! the address of a [`crate::start::Start`] as the new stack pointer, starts the stub.

/// The image. Its length is not a multiple of a page.
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub.bin"));

include!(concat!(env!("OUT_DIR"), "/stub.rs"));

/// Writes the image as it has to be when loaded at `base` into the start of `out`.
///
/// # Panics
/// If `out` is shorter than [`IMAGE`].
pub fn load(base: u64, out: &mut [u8]) {
    out[..IMAGE.len()].copy_from_slice(IMAGE);
    for &(offset, value) in RELOCATIONS {
        let at = offset as usize;
        out[at..at + 8].copy_from_slice(&(base + value).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_a_system_call() {
        assert_eq!(IMAGE[ENTRY as usize..][..2], [0x0f, 0x05]);
    }

    #[test]
    fn the_image_stays_small() {
        assert!(IMAGE.len() <= 16 * 1024, "{} bytes", IMAGE.len());
    }

    #[test]
    fn relocated_words_follow_the_load_address() {
        let mut out = vec![0; IMAGE.len()];
        load(0x5555_0000_0000, &mut out);
        for &(offset, value) in RELOCATIONS {
            let word = u64::from_le_bytes(out[offset as usize..][..8].try_into().unwrap());
            assert_eq!(word - 0x5555_0000_0000, value);
            assert!(value < IMAGE.len() as u64);
        }
    }
}
