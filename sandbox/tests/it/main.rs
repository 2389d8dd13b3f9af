//! The sandbox, checked rule by rule with a real HTTP client.
//!
//! The modules say `cfg(test)` although the whole file is a test: that is how the linter knows where `unwrap` is fine.

#[cfg(test)]
mod bitrix_batch;
#[cfg(test)]
mod bitrix_crm;
#[cfg(test)]
mod bitrix_life;
#[cfg(test)]
mod bitrix_lines;
#[cfg(test)]
mod bitrix_oauth;
#[cfg(test)]
mod bitrix_rest;
#[cfg(test)]
mod bitrix_robots;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod control;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod load;
#[cfg(test)]
mod page;
#[cfg(test)]
mod support;
#[cfg(test)]
mod telegram;
#[cfg(test)]
mod wa_edges;
#[cfg(test)]
mod wa_messages;
#[cfg(test)]
mod wa_statuses;
