//! Time zones of people, and when their quiet hours end.
//!
//! A zone is written in one canonical form: an IANA name (`Asia/Omsk`) or an offset (`+05:00`). Rules and their changes
//! come from the IANA database that `jiff` carries; which country has which zones comes from its table `zone.tab`
//! (`zones/countries.tab`).

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::ToSpan as _;
use jiff::tz::{Offset, TimeZone};

use crate::domain::guards::{QuietHours, TimeOfDay};
use crate::domain::time::{Millis, Timestamp};
use crate::numbers;

/// Names of the zones of each country.
static COUNTRIES: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let mut countries: HashMap<&'static str, Vec<&'static str>> = HashMap::new();
    let rows = include_str!("zones/countries.tab").lines().filter(|line| !line.starts_with('#'));
    for (country, zone) in rows.filter_map(|line| line.split_once(' ')) {
        countries.entry(country).or_default().push(zone);
    }
    countries
});

/// Reads a zone as people and CRM fields write it, in canonical form: `Asia/Omsk`, `+05:00`, `UTC+5`, `GMT-3:30`,
/// `МСК+2`, `MSK`. `None` for anything else; a bare number is no zone.
#[must_use]
pub fn parse(text: &str) -> Option<String> {
    let text = text.trim().replace('\u{2212}', "-");
    let upper = text.to_uppercase();
    for (prefix, base) in [("UTC", 0), ("GMT", 0), ("МСК", 3 * 60), ("MSK", 3 * 60), ("", 0)] {
        let Some(rest) = upper.strip_prefix(prefix) else { continue };
        let rest = rest.trim();
        if rest.is_empty() && !prefix.is_empty() {
            return Some(if base == 0 { "+00:00".to_owned() } else { "Europe/Moscow".to_owned() });
        }
        if let Some(minutes) = offset_minutes(rest) {
            return canonical(base + minutes);
        }
    }
    // Names only: `TimeZone::get` would also know files and rules of other kinds.
    TimeZone::get(&text).ok()?.iana_name().map(str::to_owned)
}

/// `+5`, `-03`, `+05:30`, `+0530` in minutes.
fn offset_minutes(text: &str) -> Option<i32> {
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits = text.get(1..)?.trim_start();
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some(parts), _) => parts,
        (None, 4) => digits.split_at_checked(2)?,
        (None, _) => (digits, "00"),
    };
    let number = |text: &str| -> Option<i32> {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60).then(|| sign * (hours * 60 + minutes))
}

/// An offset that some place on earth has, in canonical form.
fn canonical(minutes: i32) -> Option<String> {
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, rest) = (minutes.abs() / 60, minutes.abs() % 60);
    (-12 * 60..=14 * 60).contains(&minutes).then(|| format!("{sign}{hours:02}:{rest:02}"))
}

/// The zone of a canonical form; one that nobody knows any more reads as UTC.
#[must_use]
pub fn load(zone: &str) -> TimeZone {
    match offset_minutes(zone) {
        Some(minutes) => Offset::from_seconds(minutes * 60).map_or(TimeZone::UTC, TimeZone::fixed),
        None => TimeZone::get(zone).unwrap_or(TimeZone::UTC),
    }
}

/// The zone of a phone's country (digits with country code), when all of that country keeps one time now and over the
/// next days. A mobile number of Russia, Brazil or the United States does not tell where the person is: `None`.
#[must_use]
pub fn of_phone(digits: &str, now: Timestamp) -> Option<String> {
    let country = numbers::country_of(digits)?;
    let names = COUNTRIES.get(country.as_str())?;
    let zones = names.iter().map(|name| TimeZone::get(name).ok()).collect::<Option<Vec<TimeZone>>>()?;
    let (first, others) = zones.split_first()?;
    let same = |at: Timestamp| {
        let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
        Some(others.iter().all(|zone| zone.to_offset(at) == first.to_offset(at)))
    };
    let agreed = same(now)? && same(now.plus(Millis::hours(48)))?;
    agreed.then(|| first.iana_name().map(str::to_owned)).flatten()
}

/// When the quiet hours that hold at `now` end; `None` when `now` is not quiet.
///
/// The end is the first moment at which the wall clock shows a time outside of them. That is usually their `to`, but a
/// clock that is put forward may jump over it, and one that is put back shows it twice.
#[must_use]
pub fn quiet_end(hours: QuietHours, zone: &str, now: Timestamp) -> Option<Timestamp> {
    let zone = load(zone);
    let start = jiff::Timestamp::from_millisecond(now.0).ok()?;
    let quiet = |at: jiff::Timestamp| {
        let clock = zone.to_datetime(at);
        let time = TimeOfDay::new(clock.hour().unsigned_abs().into(), clock.minute().unsigned_abs().into());
        time.is_some_and(|time| hours.contain(time))
    };
    if !quiet(start) {
        return None;
    }
    let today = zone.to_datetime(start).date();
    let (hour, minute) = (i8::try_from(hours.to.hour()).ok()?, i8::try_from(hours.to.minute()).ok()?);
    let days = (-1..=2).filter_map(|days| today.checked_add(days.days()).ok());
    let ends = days.flat_map(|day| {
        let wall = day.at(hour, minute, 0, 0);
        let earlier = zone.to_ambiguous_zoned(wall).earlier();
        let later = zone.to_ambiguous_zoned(wall).later();
        [earlier, later].into_iter().filter_map(|end| end.ok().map(|end| end.timestamp()))
    });
    let limit = start.checked_add(72.hours()).ok()?;
    let jumps = zone.following(start).map(|change| change.timestamp()).take_while(|at| *at <= limit);
    let end = ends.chain(jumps).filter(|at| *at > start && !quiet(*at)).min()?;
    Some(Timestamp(end.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn end(hours: &str, zone: &str, now: &str) -> Option<Timestamp> {
        quiet_end(QuietHours::parse(hours).unwrap(), zone, at(now))
    }

    #[test]
    fn zones_are_read_as_people_write_them() {
        for (text, zone) in [
            ("Asia/Yekaterinburg", "Asia/Yekaterinburg"),
            (" asia/omsk ", "Asia/Omsk"),
            ("UTC", "+00:00"),
            ("UTC+5", "+05:00"),
            ("utc +5:30", "+05:30"),
            ("GMT-3", "-03:00"),
            ("+0530", "+05:30"),
            ("-10", "-10:00"),
            ("МСК", "Europe/Moscow"),
            ("мск+2", "+05:00"),
            ("MSK-1", "+02:00"),
            ("UTC\u{2212}4", "-04:00"),
        ] {
            assert_eq!(parse(text).as_deref(), Some(zone), "{text}");
            assert_eq!(parse(zone).as_deref(), Some(zone), "{zone} is canonical");
        }
        for bad in
            ["", "5", "Екатеринбург", "UTC+15", "UTC+5:75", "+5h", "../etc/passwd", "+", "+1:2:3", "EST5EDT,M3.2.0"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_zone_of_the_table_is_known() {
        let rows = include_str!("zones/countries.tab").lines().filter(|line| !line.starts_with('#'));
        let unknown: Vec<&str> = rows.filter(|row| TimeZone::get(row.split_once(' ').unwrap().1).is_err()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(COUNTRIES.len() > 240 && COUNTRIES["RU"].len() > 11);
    }

    #[test]
    fn a_phone_tells_the_zone_only_where_a_country_keeps_one_time() {
        let now = at("2026-11-22T00:00:00Z");
        for (digits, offset) in
            [("77011234567", 5), ("375291234567", 3), ("998901234567", 5), ("4915112345678", 1), ("995551234567", 4)]
        {
            let zone = of_phone(digits, now).unwrap_or_else(|| panic!("{digits}"));
            let instant = jiff::Timestamp::from_millisecond(now.0).unwrap();
            assert_eq!(load(&zone).to_offset(instant).seconds(), offset * 3600, "{digits}: {zone}");
        }
        for digits in ["79161234567", "12125550123", "5511912345678", "not a phone", ""] {
            assert_eq!(of_phone(digits, now), None, "{digits}");
        }
    }

    #[test]
    fn quiet_hours_end_by_the_clock_on_the_wall() {
        assert_eq!(end("21:00-09:00", "Asia/Yekaterinburg", "2026-11-22T16:00:00Z"), Some(at("2026-11-23T04:00:00Z")));
        assert_eq!(end("21:00-09:00", "Asia/Yekaterinburg", "2026-11-23T03:59:59Z"), Some(at("2026-11-23T04:00:00Z")));
        assert_eq!(end("21:00-09:00", "Asia/Yekaterinburg", "2026-11-23T04:00:00Z"), None);
        assert_eq!(end("21:00-09:00", "+05:00", "2026-11-22T15:59:59Z"), None);
        assert_eq!(end("12:00-13:00", "+00:00", "2026-11-22T12:30:00Z"), Some(at("2026-11-22T13:00:00Z")));
    }

    #[test]
    fn clocks_that_are_changed_meanwhile_are_followed() {
        // Berlin: put back at 01:00 UTC on 2026-10-25 (the hour 02 comes twice), forward on 2026-03-29 (it never comes).
        let night = |now| end("21:00-09:00", "Europe/Berlin", now);
        assert_eq!(night("2026-10-24T20:00:00Z"), Some(at("2026-10-25T08:00:00Z")));
        assert_eq!(night("2026-03-28T21:00:00Z"), Some(at("2026-03-29T07:00:00Z")));
        let short = |now| end("01:00-02:30", "Europe/Berlin", now);
        assert_eq!(short("2026-03-29T00:30:00Z"), Some(at("2026-03-29T01:00:00Z")), "the end was jumped over");
        assert_eq!(short("2026-10-25T00:10:00Z"), Some(at("2026-10-25T00:30:00Z")), "the first half past two");
        assert_eq!(short("2026-10-25T01:10:00Z"), Some(at("2026-10-25T01:30:00Z")), "and the second");
    }

    const ZONES: [&str; 8] = [
        "Europe/Moscow",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Africa/Casablanca",
        "-03:30",
        "+14:00",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Against a watch that is looked at every minute.
        #[test]
        fn the_end_is_the_first_minute_that_is_not_quiet(
            zone in proptest::sample::select(ZONES.to_vec()),
            from in 0u16..1440, to in 0u16..1440,
            // Minutes of 2026 and 2027.
            minute in 0i64..1_051_200, second in 0i64..60,
        ) {
            let time = |minutes: u16| TimeOfDay::new(minutes / 60, minutes % 60).unwrap();
            let Some(hours) = QuietHours::new(time(from), time(to)) else { return Ok(()) };
            let clock = load(zone);
            let quiet = |at: i64| {
                let wall = clock.to_datetime(jiff::Timestamp::from_second(at).unwrap());
                hours.contain(TimeOfDay::new(wall.hour() as u16, wall.minute() as u16).unwrap())
            };
            let whole = 1_767_225_600 + minute * 60;
            let now = whole + second;
            let found = quiet_end(hours, zone, Timestamp(now * 1000));
            let expected = quiet(now).then(|| (1..5_000).map(|n| whole + n * 60).find(|at| !quiet(*at)).unwrap());
            prop_assert_eq!(found, expected.map(|at| Timestamp(at * 1000)));
        }
    }
}
