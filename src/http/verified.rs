//! Proof that an input was checked.
//!
//! A [`Verified`] value can be made in this room only, after a signature or secret was compared; the pipeline takes
//! nothing else, so unchecked input cannot get in by mistake.

/// Something whose sender has proved itself.
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Only for the rooms below `http`, after the check.
    pub(in crate::http) fn checked(value: T) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Takes the value out.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}
