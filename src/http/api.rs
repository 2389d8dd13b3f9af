//! `/api/v1/*`: management and messaging.
