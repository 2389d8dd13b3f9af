//! `/api/v1/*`: management and messaging.

/// tmp
pub fn routes(_: &mut actix_web::web::ServiceConfig) {}
/// tmp
pub fn openapi() -> String {
    String::new()
}
