//! Lists by pages: a bounded number of items, and where the next page begins.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::problem::Problem;

/// Items of a page when nothing else is asked for.
const USUAL: u32 = 50;
/// Most items of a page.
pub(super) const LIMIT_MAX: u32 = 200;
/// Longest cursor, in bytes; ours are shorter.
const CURSOR_MAX: usize = 200;

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// At most `limit` of them.
    pub(super) items: Vec<T>,
    /// The `cursor` of the next page; null on the last one.
    pub(super) next: Option<String>,
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Most items.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<u32>,
    /// `next` of the page before.
    pub(super) cursor: Option<String>,
}

/// The limit asked for.
///
/// # Errors
/// 400 beyond 1 to [`LIMIT_MAX`].
pub(super) fn limit_of(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(USUAL);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::Malformed(format!("limit: 1 to {LIMIT_MAX}")))
}

/// The cursor given, read by `parse`; an empty one is none.
///
/// # Errors
/// 400 for a cursor that no list of ours has given.
pub(super) fn cursor_of<T>(cursor: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let Some(text) = cursor.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = Some(text).filter(|text| text.len() <= CURSOR_MAX).and_then(parse);
    parsed.map(Some).ok_or_else(|| Problem::Malformed("cursor: give `next` of the page before".to_owned()))
}

impl<T> Page<T> {
    /// Makes a page of `limit` items from one item more than that, where there are so many.
    pub(super) fn of<R>(
        mut rows: Vec<R>,
        limit: u32,
        cursor: impl FnOnce(&R) -> String,
        view: impl FnMut(R) -> T,
    ) -> Self {
        let limit = limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(cursor);
        Self { items: rows.into_iter().map(view).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_next() {
        let page = |rows: Vec<u32>| Page::of(rows, 2, ToString::to_string, |row| row);
        assert_eq!(page(vec![1, 2, 3]).next.as_deref(), Some("2"));
        assert_eq!(page(vec![1, 2, 3]).items, [1, 2]);
        assert_eq!(page(vec![1, 2]).next, None);
        assert_eq!(page(vec![]).next, None);
    }

    #[test]
    fn limits_and_cursors_are_checked() {
        assert_eq!(limit_of(None), Ok(50));
        assert_eq!(limit_of(Some(200)), Ok(200));
        assert!(limit_of(Some(0)).is_err());
        assert!(limit_of(Some(201)).is_err());
        let number = |text: &str| text.parse::<u32>().ok();
        assert_eq!(cursor_of(Some(""), number), Ok(None));
        assert_eq!(cursor_of(Some("7"), number), Ok(Some(7)));
        assert!(cursor_of(Some("x"), number).is_err());
        assert!(cursor_of(Some(&"0".repeat(201)), number).is_err());
    }
}
