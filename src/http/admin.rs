//! Who may use the API: whoever has the administrator's token.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::http::State;
use crate::http::peers::Verdict;
use crate::http::problem::Problem;

/// A call that carries the administrator's token. Every handler takes it first, so that nothing else is read or told
/// before the token was checked.
pub(in crate::http) struct Admin(());

impl FromRequest for Admin {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(check(request).map(Self))
    }
}

fn check(request: &HttpRequest) -> Result<(), Problem> {
    let state = request.app_data::<web::Data<State>>().ok_or(Problem::Internal)?;
    let wanted = state.admin_token.as_ref().map(ExposeSecret::expose_secret).filter(|token| !token.is_empty());
    let wanted = wanted.ok_or(Problem::SwitchedOff)?;
    // A call without a token is no guess, so it is not counted.
    let given = bearer(request).ok_or(Problem::Unauthorized)?;
    match state.peers.judge(state.peers.address(request), is_same(given, wanted), state.clock.now()) {
        Verdict::Right => Ok(()),
        Verdict::Wrong => Err(Problem::Unauthorized),
        Verdict::TooMany(seconds) => Err(Problem::TooMany(seconds)),
    }
}

fn bearer(request: &HttpRequest) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares digests, so that the time taken tells neither where tokens differ nor how long ours is.
fn is_same(given: &str, wanted: &str) -> bool {
    Sha256::digest(given).ct_eq(&Sha256::digest(wanted)).into()
}
