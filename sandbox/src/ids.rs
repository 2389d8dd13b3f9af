//! Ids and other random-looking text. One lock-free generator; the same seed gives the same ids in the same order.

use std::sync::atomic::{AtomicU64, Ordering};

/// A splitmix64 sequence over an atomic counter. Not for secrets of the real world.
#[derive(Debug)]
pub(crate) struct Ids {
    state: AtomicU64,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const HEX: &[u8; 16] = b"0123456789abcdef";
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl Ids {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }

    /// Uniform in `0.0..1.0`.
    pub(crate) fn unit(&self) -> f64 {
        unit(self.next())
    }

    /// Uniform in `0..=max`.
    pub(crate) fn up_to(&self, max: u64) -> u64 {
        if max == u64::MAX { self.next() } else { self.next() % (max + 1) }
    }

    pub(crate) fn hex(&self, len: usize) -> String {
        let mut text = String::with_capacity(len + 16);
        while text.len() < len {
            let mut bits = self.next();
            for _ in 0..16 {
                text.push(char::from(HEX[usize::from((bits & 15) as u8)]));
                bits >>= 4;
            }
        }
        text.truncate(len);
        text
    }

    pub(crate) fn digits(&self, len: usize) -> String {
        let digit = |at: usize| if at == 0 { 1 + self.up_to(8) } else { self.up_to(9) };
        (0..len).map(|at| char::from(b'0' + u8::try_from(digit(at)).unwrap_or(0))).collect()
    }

    pub(crate) fn letters(&self, len: usize) -> String {
        let mut text = String::with_capacity(len + 8);
        while text.len() < len {
            let mut bits = self.next();
            for _ in 0..8 {
                text.push(char::from(LETTERS[usize::from((bits & 255) as u8) % LETTERS.len()]));
                bits >>= 8;
            }
        }
        text.truncate(len);
        text
    }
}

pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
