//! Reads telephone numbers as people write them in a CRM.
//!
//! A number library knows which digits exist in which country; it does not know how Russian-speaking offices write
//! them. So the text is first reduced to digits by our own rules, then a short list of readings is tried in order, and
//! the first one that is a valid number wins. Nothing is guessed beyond that list: what is not valid in any reading is
//! refused, and a person corrects the card.
//!
//! The rules, in the order they matter:
//!
//! - Links and schemes around a number are taken off: `tel:`, `callto:`, `whatsapp:`, `wa.me/…`,
//!   `api.whatsapp.com/send?phone=…`, `whatsapp://send?phone=…`.
//! - An extension (`доб. 12`, `вн. 5`, `ext 5`, `x5`, `#5`, `;ext=5`) is cut off: a messenger has none, and the number
//!   before it is the one that may have an account.
//! - Letters, and more than one number, are refused. A library would read letters as keys or drop them, and a message
//!   would go to a stranger.
//! - A leading `+` (or `00`, or Russian `8 10`) is taken at its word. Without one, eleven digits that start with 7 or 8
//!   are Russia's and Kazakhstan's way to write `+7`, whatever the country, except where 8 is the country's own trunk
//!   prefix (Belarus) and the number is valid there.
//!
//! Source of validity: Google's libphonenumber metadata as `rlibphonenumber` 2.2 carries it. Traps of the library that
//! the rules avoid: with Kazakhstan as country it finds `7(900)…` invalid, and `998901234567` without `+` invalid
//! anywhere but in Uzbekistan.

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, Region};

use crate::domain::phone::Phone;

/// Longest text that is looked at, in characters: room for a link that carries a greeting beside the number.
const TEXT_MAX: usize = 1_000;
/// Fewest digits of any number with area code; shorter ones are emergency, short codes or typing errors.
const DIGITS_MIN: usize = 7;
/// Most digits of one number: fifteen of E.164 and the prefixes dialled before them (`8 10`).
const DIGITS_MAX: usize = 18;

/// Calling codes of countries outside +7 where national calls are dialled with 8: Belarus, Turkmenistan, Lithuania.
const TRUNK_EIGHT: [i32; 3] = [375, 993, 370];

/// Why a text is no phone number. Carries nothing of the text, so it can be logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAPhone {
    /// Nothing is left but signs.
    #[error("no digits")]
    Empty,
    /// It contains letters or signs that no number has.
    #[error("letters or signs that no phone number has")]
    Letters,
    /// Several numbers in one text; the caller splits lists before.
    #[error("more than one number")]
    Several,
    /// No number has so few or so many digits.
    #[error("wrong count of digits")]
    Length,
    /// The digits are no valid number in any reading.
    #[error("no such number in this or any country")]
    Invalid,
}

/// Reads one number. `country` (ISO 3166, two letters, any case) is where numbers without a country code are at home;
/// text that is no country means that such numbers are refused.
///
/// The result read again with its `+` is the same number, in every country.
///
/// # Errors
/// [`NotAPhone`]; the text given is never part of it.
pub fn read(text: &str, country: &str) -> Result<Phone, NotAPhone> {
    if text.chars().count() > TEXT_MAX {
        return Err(NotAPhone::Length);
    }
    let plain: String = text.chars().filter(|sign| !is_invisible(*sign)).map(plain_sign).collect();
    let (number, is_international) = take_out_of_link(plain.trim());
    let number = cut_extension(&number);
    let written = digits_of(number)?;
    let region = country.trim().to_ascii_uppercase().parse::<Region>().ok();
    let readings = if written.plus { explicit(&written.digits, region) } else { implicit(&written.digits, region) };
    let literal = is_international.then(|| Reading::International(written.digits.clone()));
    literal.into_iter().chain(readings).find_map(|reading| reading.phone(region)).ok_or(NotAPhone::Invalid)
}

/// True for a country (ISO 3166, two letters, any case) whose numbers can be read.
#[must_use]
pub fn is_country(text: &str) -> bool {
    text.len() == 2
        && text.to_ascii_uppercase().parse::<Region>().is_ok_and(|region| calling_code(Some(region)).is_some())
}

/// The country (ISO 3166, two letters) that a number belongs to; `digits` are international, without `+`. `None` for what
/// is no number and for numbers of no country.
#[must_use]
pub fn country_of(digits: &str) -> Option<String> {
    let number = PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None).ok()?;
    PHONE_NUMBER_UTIL.get_region_for_number(&number).map(|region| region.to_string())
}

/// Signs without a shape that copying brings along: zero-width and direction marks, soft hyphen, byte order mark.
fn is_invisible(sign: char) -> bool {
    matches!(sign, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Full-width and Arabic signs in their plain form; every dash as a hyphen; every space as a space.
fn plain_sign(sign: char) -> char {
    let digit = |zero: u32| char::from_digit(u32::from(sign) - zero, 10).unwrap_or(sign);
    match sign {
        '\u{ff10}'..='\u{ff19}' => digit(0xff10),
        '\u{660}'..='\u{669}' => digit(0x660),
        '\u{6f0}'..='\u{6f9}' => digit(0x6f0),
        '\u{ff0b}' => '+',
        '\u{ff08}' => '(',
        '\u{ff09}' => ')',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}' => '-',
        _ if sign.is_whitespace() && sign != '\n' => ' ',
        _ => sign,
    }
}

/// Takes links and schemes off. The flag is true for links that hold international digits by definition.
fn take_out_of_link(text: &str) -> (String, bool) {
    let mut rest = text;
    let mut is_link = false;
    for scheme in ["https://", "http://", "whatsapp://"] {
        if let Some(inner) = strip_prefix(rest, scheme) {
            (rest, is_link) = (inner, true);
            break;
        }
    }
    if let Some(inner) = strip_prefix(rest, "www.") {
        rest = inner;
    }
    for door in ["api.whatsapp.com/send", "web.whatsapp.com/send", "wa.me/send", "send"] {
        let Some(query) = strip_prefix(rest, door).map(|inner| inner.trim_start_matches('/')) else { continue };
        let Some(query) = query.strip_prefix('?') else { continue };
        let phone = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "phone");
        // A plus sign that was not encoded reads as a space.
        return (phone.map(|(_, value)| value.trim().to_owned()).unwrap_or_default(), true);
    }
    if let Some(inner) = strip_prefix(rest, "wa.me/") {
        let end = inner.find(['?', '#', '/']).unwrap_or(inner.len());
        let path = inner.get(..end).unwrap_or_default();
        return (percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned(), true);
    }
    if is_link {
        return (text.to_owned(), false);
    }
    for scheme in ["tel:", "callto:", "whatsapp:"] {
        if let Some(inner) = strip_prefix(rest, scheme) {
            return (inner.trim_start_matches('/').trim().to_owned(), false);
        }
    }
    (text.to_owned(), false)
}

fn strip_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| text.get(prefix.len()..).unwrap_or_default())
}

/// Cuts an extension off: a known word or `#` after enough digits, then one to six digits and nothing else.
fn cut_extension(text: &str) -> &str {
    const WORDS: [&str; 9] = ["extension", "ext", "добавочный", "добав", "доб", "внутренний", "внутр", "вн", "x"];
    let shown = text.trim_end().trim_end_matches(')').trim_end();
    let without_digits = shown.trim_end_matches(|sign: char| sign.is_ascii_digit());
    if !(1..=6).contains(&(shown.len() - without_digits.len())) {
        return text;
    }
    let head = without_digits.trim_end_matches([' ', '.', ':', '=', '№']);
    let lower = head.to_lowercase();
    let number = match WORDS.iter().find(|word| lower.ends_with(**word)) {
        Some(word) => {
            // Counted in characters, because lower case may change the length of what stands before the word.
            let keep = head.chars().count().checked_sub(word.chars().count());
            keep.and_then(|keep| head.char_indices().nth(keep)).and_then(|(at, _)| head.get(..at))
        }
        None => head.strip_suffix('#'),
    };
    let number = number.map(|number| number.trim_end_matches([' ', '(', ',', ';', '.']));
    let enough = |number: &&str| number.chars().filter(char::is_ascii_digit).count() >= DIGITS_MIN;
    number.filter(enough).unwrap_or(text)
}

/// Digits of one number, and whether a `+` stood before them.
struct Written {
    digits: String,
    plus: bool,
}

/// Takes the signs between the digits off; refuses whatever does not belong to one number.
fn digits_of(text: &str) -> Result<Written, NotAPhone> {
    let text = text.trim_matches([' ', ',', ';', '.', '\n']);
    let mut digits = String::new();
    let mut plus = false;
    for sign in text.chars() {
        match sign {
            '0'..='9' => digits.push(sign),
            '+' if digits.is_empty() => plus = true,
            '+' | ',' | ';' | '\n' | '|' => return Err(NotAPhone::Several),
            ' ' | '-' | '(' | ')' | '.' | '/' | '_' | '~' => {}
            _ => return Err(NotAPhone::Letters),
        }
    }
    match digits.len() {
        0 => Err(NotAPhone::Empty),
        DIGITS_MIN..=DIGITS_MAX => Ok(Written { digits, plus }),
        count if count >= 2 * DIGITS_MIN => Err(NotAPhone::Several),
        _ => Err(NotAPhone::Length),
    }
}

/// One way to understand digits.
enum Reading {
    /// Country code and number.
    International(String),
    /// As they are dialled inside the country.
    National(String),
}

impl Reading {
    /// The number, if it is a valid one in this reading.
    fn phone(&self, region: Option<Region>) -> Option<Phone> {
        let parsed = match self {
            Self::International(digits) => PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None).ok()?,
            Self::National(digits) => PHONE_NUMBER_UTIL.parse(digits, Some(region?)).ok()?,
        };
        if !PHONE_NUMBER_UTIL.is_valid_number(&parsed) {
            return None;
        }
        let written = PHONE_NUMBER_UTIL.format(&parsed, PhoneNumberFormat::E164);
        Phone::from_digits(written.trim_start_matches('+'))
    }
}

/// Readings of digits after a `+`: at their word, then `+8 9xx…`, which people write when they put a plus before the
/// national form.
fn explicit(digits: &str, region: Option<Region>) -> Vec<Reading> {
    let mut readings = vec![Reading::International(digits.to_owned())];
    if calling_code(region) == Some(7) {
        readings.extend(seven(digits));
    }
    readings
}

/// Readings of digits without a `+`, best first.
fn implicit(digits: &str, region: Option<Region>) -> Vec<Reading> {
    let international = || Reading::International(digits.to_owned());
    let national = || Reading::National(digits.to_owned());
    if let Some(dialled) = digits.strip_prefix("00").or_else(|| digits.strip_prefix("810")) {
        return vec![Reading::International(dialled.to_owned()), national()];
    }
    let code = calling_code(region);
    let own_code = code.is_some_and(|code| digits.starts_with(&code.to_string()));
    let first = digits.chars().next().unwrap_or_default();
    let mut readings = Vec::new();
    if own_code && digits.len() >= 11 {
        // Most likely the country's own code written without its plus.
        readings.extend([international(), national()]);
    } else if digits.len() == 11 && first == '8' && code.is_some_and(|code| TRUNK_EIGHT.contains(&code)) {
        readings.push(national());
        readings.extend(seven(digits));
    } else if digits.len() == 11 && matches!(first, '7' | '8') {
        readings.extend(seven(digits));
        readings.push(national());
    } else if digits.len() >= 12 {
        readings.extend([international(), national()]);
    } else {
        readings.extend([national(), international()]);
    }
    // `8 0xx …` with the trunk prefixes of two eras, as Ukraine and its neighbours still write.
    if let Some(rest) = digits.strip_prefix('8').filter(|rest| rest.starts_with('0')) {
        readings.push(Reading::National(rest.to_owned()));
    }
    readings
}

/// Eleven digits that start with 7 or 8 as `+7`.
fn seven(digits: &str) -> Option<Reading> {
    let rest = digits.strip_prefix(['7', '8']).filter(|rest| rest.len() == 10)?;
    Some(Reading::International(format!("7{rest}")))
}

fn calling_code(region: Option<Region>) -> Option<i32> {
    PHONE_NUMBER_UTIL.get_country_code_for_region(region?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COUNTRIES: [&str; 10] = ["RU", "KZ", "BY", "UA", "UZ", "DE", "US", "CN", "", "??"];

    fn digits(text: &str, country: &str) -> Result<String, NotAPhone> {
        read(text, country).map(|phone| phone.digits().to_owned())
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, country, expected) in [
            // Russia.
            ("8 (900) 123-45-67", "RU", "79001234567"),
            ("+7 900 123-45-67", "RU", "79001234567"),
            ("+7(900)123 45 67", "", "79001234567"),
            ("79001234567", "RU", "79001234567"),
            ("79001234567", "", "79001234567"),
            ("89001234567", "RU", "79001234567"),
            ("89001234567", "ru", "79001234567"),
            ("9001234567", "RU", "79001234567"),
            ("8-800-555-35-35", "RU", "78005553535"),
            ("8 800 555 35 35", "KZ", "78005553535"),
            ("4951234567", "RU", "74951234567"),
            ("8 (495) 123-45-67", "RU", "74951234567"),
            ("(812) 123-45-67", "RU", "78121234567"),
            ("+8 900 123 45 67", "RU", "79001234567"),
            ("  8.900.123.45.67, ", "RU", "79001234567"),
            ("8\u{a0}900\u{2011}123\u{2013}45\u{2014}67", "RU", "79001234567"),
            ("\u{202a}+7 900 123-45-67\u{202c}\u{200b}", "RU", "79001234567"),
            ("＋７（９００）１２３－４５－６７", "RU", "79001234567"),
            ("٧٩٠٠١٢٣٤٥٦٧", "RU", "79001234567"),
            // Kazakhstan.
            ("+7 701 123 45 67", "KZ", "77011234567"),
            ("8 701 123 45 67", "KZ", "77011234567"),
            ("8 701 123 45 67", "RU", "77011234567"),
            ("7011234567", "KZ", "77011234567"),
            ("7(900)123-45-67", "KZ", "79001234567"),
            // Belarus.
            ("+375 29 123-45-67", "RU", "375291234567"),
            ("375291234567", "RU", "375291234567"),
            ("8 029 123-45-67", "BY", "375291234567"),
            ("80291234567", "BY", "375291234567"),
            ("291234567", "BY", "375291234567"),
            ("8 900 123-45-67", "BY", "79001234567"),
            ("79001234567", "BY", "79001234567"),
            // Ukraine.
            ("+380 50 123 45 67", "RU", "380501234567"),
            ("380501234567", "RU", "380501234567"),
            ("050 123 45 67", "UA", "380501234567"),
            ("8 050 123 45 67", "UA", "380501234567"),
            ("00380501234567", "RU", "380501234567"),
            // Uzbekistan.
            ("998901234567", "RU", "998901234567"),
            ("+998 (90) 123-45-67", "RU", "998901234567"),
            ("901234567", "UZ", "998901234567"),
            // Elsewhere.
            ("+1 (202) 555-0123", "RU", "12025550123"),
            ("12025550123", "RU", "12025550123"),
            ("(202) 555-0123", "US", "12025550123"),
            ("8 10 49 30 901820", "RU", "4930901820"),
            ("0049 30 901820", "RU", "4930901820"),
            ("030 901820", "DE", "4930901820"),
            ("447911123456", "RU", "447911123456"),
            ("+44 7911 123456", "", "447911123456"),
            ("48600123456", "RU", "48600123456"),
            ("13912345678", "CN", "8613912345678"),
            ("84951234567", "RU", "74951234567"),
            ("84912345678", "VN", "84912345678"),
            // Links and schemes.
            ("tel:+7-900-123-45-67", "RU", "79001234567"),
            ("TEL:89001234567", "RU", "79001234567"),
            ("callto://+79001234567", "RU", "79001234567"),
            ("whatsapp:+79001234567", "RU", "79001234567"),
            ("https://wa.me/79001234567", "", "79001234567"),
            ("http://wa.me/+79001234567?text=Hi%20there", "", "79001234567"),
            ("wa.me/4930901820", "RU", "4930901820"),
            ("wa.me/%2B4930901820/", "RU", "4930901820"),
            ("wa.me/89001234567", "RU", "79001234567"),
            ("https://api.whatsapp.com/send?phone=79001234567&text=8", "", "79001234567"),
            ("https://api.whatsapp.com/send/?text=1&phone=%2B79001234567", "", "79001234567"),
            ("https://web.whatsapp.com/send?phone=+79001234567", "", "79001234567"),
            ("whatsapp://send?phone=79001234567", "", "79001234567"),
            // Extensions are cut.
            ("+7 495 123-45-67 доб. 12", "RU", "74951234567"),
            ("+7 495 123-45-67 (доб. 12)", "RU", "74951234567"),
            ("+7 495 123-45-67, доб 123456", "RU", "74951234567"),
            ("8(495)1234567 ДОБАВОЧНЫЙ: 7", "RU", "74951234567"),
            ("84951234567 вн.5", "RU", "74951234567"),
            ("84951234567 внутр. № 5", "RU", "74951234567"),
            ("+1 202 555 0123 ext 5", "RU", "12025550123"),
            ("+1 202 555 0123 Ext. 5", "RU", "12025550123"),
            ("+12025550123x55", "RU", "12025550123"),
            ("84951234567 #12", "RU", "74951234567"),
            ("tel:+74951234567;ext=12", "RU", "74951234567"),
        ] {
            assert_eq!(digits(text, country).as_deref(), Ok(expected), "{text} from {country:?}");
        }
    }

    #[test]
    fn countries_are_known_by_two_letters() {
        for good in ["RU", "ru", "Kz", "US"] {
            assert!(is_country(good), "{good}");
        }
        for bad in ["", "R", "XX", "RUS", "Россия", " RU", "001", "ZZ"] {
            assert!(!is_country(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_no_number_says_why() {
        for (text, country, expected) in [
            ("", "RU", NotAPhone::Empty),
            (" ()- ", "RU", NotAPhone::Empty),
            ("+", "RU", NotAPhone::Empty),
            ("нет", "RU", NotAPhone::Letters),
            ("@ada", "RU", NotAPhone::Letters),
            ("8 900 123-45-6O", "RU", NotAPhone::Letters),
            ("8 900 123-45-67 Иван", "RU", NotAPhone::Letters),
            ("1 800 FLOWERS", "US", NotAPhone::Letters),
            ("79001234567@c.us", "RU", NotAPhone::Letters),
            ("ada79001234567@mail.example", "RU", NotAPhone::Letters),
            ("https://crm.example/79001234567", "RU", NotAPhone::Letters),
            ("https://wa.me/message/ABC123", "RU", NotAPhone::Letters),
            ("https://api.whatsapp.com/send?text=79001234567", "RU", NotAPhone::Empty),
            ("{{Телефон}}", "RU", NotAPhone::Letters),
            ("8 900 123-45-67 доб. 12 или 13", "RU", NotAPhone::Letters),
            ("доб. 12", "RU", NotAPhone::Letters),
            ("8 900 123-45-67 доб. 1234567", "RU", NotAPhone::Letters),
            ("İİİİİİİ1234567x1", "RU", NotAPhone::Letters),
            ("112", "RU", NotAPhone::Length),
            ("123-45", "RU", NotAPhone::Length),
            ("8 900 123-45-67 8 900 765-43-21", "RU", NotAPhone::Several),
            ("89001234567, 89007654321", "RU", NotAPhone::Several),
            ("89001234567;89007654321", "RU", NotAPhone::Several),
            ("89001234567/89007654321", "RU", NotAPhone::Several),
            ("+79001234567 +79007654321", "RU", NotAPhone::Several),
            ("79001234567\n79007654321", "RU", NotAPhone::Several),
            ("123-45-67", "RU", NotAPhone::Invalid),
            ("8 900 123-45-6", "RU", NotAPhone::Invalid),
            ("8 900 123-45-678", "RU", NotAPhone::Invalid),
            ("+7 000 000 00 00", "RU", NotAPhone::Invalid),
            ("9001234567", "", NotAPhone::Invalid),
            ("9001234567", "Россия", NotAPhone::Invalid),
            ("+999 123 456 789", "RU", NotAPhone::Invalid),
        ] {
            assert_eq!(digits(text, country), Err(expected), "{text} from {country:?}");
        }
        assert_eq!(read(&"1".repeat(TEXT_MAX + 1), "RU"), Err(NotAPhone::Length));
    }

    #[test]
    fn our_own_digits_are_read_back_where_our_customers_are() {
        for number in ["79001234567", "77011234567", "375291234567", "380501234567", "998901234567", "12025550123"] {
            for country in ["RU", "KZ", "BY", "UA", "UZ", ""] {
                assert_eq!(digits(number, country).as_deref(), Ok(number), "{country}");
            }
        }
    }

    fn same_with_plus(phone: &Phone) -> bool {
        COUNTRIES.iter().all(|country| read(&phone.international(), country).as_ref() == Ok(phone))
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}", country in "\\PC{0,3}") {
            let _ = read(&text, &country);
        }

        #[test]
        fn numbers_with_noise_are_read_or_refused(
            text in "(tel:|wa.me/|https://wa.me/|whatsapp:)?[+＋]?[0-9٠-٩０-９ ()./,;#xдобвн=—-]{0,30}",
            country in proptest::sample::select(COUNTRIES.to_vec()),
        ) {
            if let Ok(phone) = read(&text, country) {
                prop_assert!(same_with_plus(&phone), "{}", phone.digits());
            }
        }

        #[test]
        fn what_was_read_reads_again_as_itself(
            text in "[+]?[0-9]{7,15}",
            country in proptest::sample::select(COUNTRIES.to_vec()),
        ) {
            if let Ok(phone) = read(&text, country) {
                prop_assert!(same_with_plus(&phone), "{}", phone.digits());
            }
        }
    }
}
