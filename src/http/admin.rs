//! Proof that a caller is the administrator: the bearer token of the configuration.

use actix_web::HttpRequest;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::State;
use super::problem::Problem;

/// Checks `Authorization: Bearer …` in constant time.
///
/// # Errors
/// [`Problem::Unauthorized`]; also when no token is configured, because then nobody is the administrator.
pub fn check(request: &HttpRequest, state: &State) -> Result<(), Problem> {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer ")).map(str::trim);
    match (given, &state.admin_token) {
        (Some(given), Some(expected)) if same(given, expected.expose_secret()) => Ok(()),
        (Some(_) | None, _) => Err(Problem::Unauthorized),
    }
}

/// Compares hashes, so that neither content nor length of the secret shows in the time taken.
fn same(given: &str, expected: &str) -> bool {
    bool::from(Sha256::digest(given).ct_eq(&Sha256::digest(expected)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_same() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abcd") && !same("", "abc"));
    }
}
