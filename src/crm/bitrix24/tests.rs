//! The room as a whole, against a server that plays portal and authorization server.

mod effects;
mod pages;
mod people;
mod registrations;
mod tokens;
