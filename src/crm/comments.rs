//! The living comment of a message, as text with the mark-up of the CRM that shows it.
//!
//! What people and vendors wrote is put in without mark-up: Bitrix24 knows no escape for square brackets, and a client's
//! text must not become a link or call a user, so they are replaced there; amoCRM shows notes as plain text. The last line carries the short form of the message's id: people
//! quote it, and it is how a comment is recognised that may have been written without our hearing of it.

use jiff::tz::TimeZone;

use crate::domain::channel::Messenger;
use crate::domain::deed::Deed;
use crate::domain::effect::{CommentView, Planned};
use crate::domain::language::Language;
use crate::domain::message::Silence;
use crate::domain::outcome::ErrorCode;
use crate::domain::phone::masked;
use crate::domain::status::MessageState;
use crate::domain::time::{Millis, Timestamp};
use crate::{i18n, zones};

/// What a CRM makes of marks in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Markup {
    /// Bitrix24's tags in square brackets.
    BbCode,
    /// Nothing: the text stands as it is.
    Plain,
}

impl Markup {
    fn bold(self, text: &str) -> String {
        match self {
            Self::BbCode => format!("[b]{text}[/b]"),
            Self::Plain => text.to_owned(),
        }
    }

    fn quiet(self, text: &str) -> String {
        match self {
            Self::BbCode => format!("[color=#959ca4]{text}[/color]"),
            Self::Plain => text.to_owned(),
        }
    }

    fn person(self, id: &str) -> String {
        match self {
            Self::BbCode => format!("[user={id}]№{id}[/user]"),
            Self::Plain => format!("№{id}"),
        }
    }

    /// Foreign text on one line and without mark-up.
    fn foreign(self, text: &str) -> String {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::BbCode => unmarked(&line),
            Self::Plain => line,
        }
    }
}

/// How comments look, by the CRM and the operator's settings.
#[derive(Clone, Debug)]
pub(super) struct CommentStyle {
    /// What the CRM makes of marks.
    pub(super) markup: Markup,
    /// Show addresses as `+7•••••12-34`.
    pub(super) mask: bool,
    /// Whose clock the times are given by.
    pub(super) zone: TimeZone,
}

impl CommentStyle {
    /// The whole comment.
    pub(super) fn text(&self, language: Language, view: &CommentView) -> String {
        let say = |key: &str, values: &[(&str, &str)]| i18n::text(language, &format!("comment.{key}"), values);
        let plain = |text: &str| self.markup.foreign(text);
        let mut lines = Vec::new();

        let messenger = view.messenger.map_or_else(|| say("message", &[]), |messenger| messenger.title().to_owned());
        let mut head = self.markup.bold(&messenger);
        if !view.channel.is_empty() {
            head.push_str(&format!(" · {}", plain(&view.channel)));
        }
        if !view.peer.is_empty() {
            head.push_str(&format!(" → {}", plain(&self.peer(view))));
        }
        lines.push(head);

        let state = match &view.deed {
            None => say(&format!("state_{}", view.state.code()), &[]),
            Some(_) if view.state == MessageState::Failed => say("deed_failed", &[]),
            Some(deed) => self.deed(language, deed),
        };
        lines.push(format!("{state}, {}", self.moment(view.at, "%H:%M %d.%m")));
        if view.deed.is_some() {
            // Nothing is awaited of what is no message.
        } else if !view.receipts && view.state == MessageState::Sent {
            lines.push(say("no_receipts", &[("messenger", &messenger)]));
        } else if let Some(silence) = view.silence {
            let minutes = (view.silent_for.0 / Millis::minutes(1).0).max(1).to_string();
            let key = match silence {
                Silence::Told => format!("silent_{}", view.state.code()),
                Silence::Closed => "closed".to_owned(),
            };
            lines.push(say(&key, &[("minutes", &minutes)]));
        }

        if let Some(template) = &view.template {
            lines.push(say("template", &[("name", &plain(template))]));
        }
        if !view.excerpt.is_empty() {
            lines.push(say("quote", &[("text", &plain(&view.excerpt))]));
        }
        if let Some(planned) = &view.planned {
            lines.push(self.planned(language, planned));
        }
        // Why it waits has just been said.
        let said = view.planned.is_some();
        if let Some(failure) = view.failure.as_ref().filter(|failure| !(said && failure.code == ErrorCode::StillQueued))
        {
            let reason = plain(&i18n::error(language, failure.code, &failure.detail));
            lines.push(match view.vendor_code.as_str() {
                "" => say("reason", &[("reason", &reason)]),
                code => say("reason_code", &[("reason", &reason), ("code", &plain(code))]),
            });
            let advice = i18n::advice(language, failure.code);
            if !advice.is_empty() {
                lines.push(say("advice", &[("advice", &advice)]));
            }
        }
        let user = view.responsible.as_ref().map(|user| user.as_str());
        if let Some(id) = user.filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())) {
            lines.push(say("responsible", &[("user", &self.markup.person(id))]));
        }
        lines.push(self.markup.quiet(&format!("· №{}", view.message.short())));
        lines.join("\n")
    }

    /// What was done, in one sentence.
    fn deed(&self, language: Language, deed: &Deed) -> String {
        match deed {
            Deed::TagDialog { tags, .. } if tags.is_empty() => i18n::text(language, "deed.no_tags", &[]),
            Deed::TagDialog { tags, .. } => {
                let tags = self.markup.foreign(&tags.join(", "));
                i18n::text(language, "deed.tags", &[("tags", &tags)])
            }
            Deed::RenameChat { name } => {
                i18n::text(language, "deed.rename_chat", &[("name", &self.markup.foreign(name))])
            }
            Deed::CheckPhone(evidence) => {
                let day = evidence.at.map(|at| self.moment(at, "%d.%m.%Y")).unwrap_or_default();
                i18n::text(language, &format!("deed.phone_{}", evidence.sign.code()), &[("day", &day)])
            }
        }
    }

    /// When a message leaves that came in quiet hours: by the client's clock, where that is known.
    fn planned(&self, language: Language, planned: &Planned) -> String {
        let clock = Self { zone: zones::load(&planned.zone), ..self.clone() };
        let (time, zone) = (clock.moment(planned.at, "%H:%M %d.%m"), clock.moment(planned.at, "UTC%:z"));
        let key = match (planned.too_late, planned.of_client) {
            (false, true) => "comment.planned_client",
            (false, false) => "comment.planned",
            (true, true) => "comment.too_late_client",
            (true, false) => "comment.too_late",
        };
        i18n::text(language, key, &[("time", &time), ("zone", &zone)])
    }

    /// A moment by the style's clock; empty for moments no calendar knows.
    pub(super) fn moment(&self, at: Timestamp, format: &str) -> String {
        jiff::Timestamp::from_millisecond(at.0)
            .map(|at| at.to_zoned(self.zone.clone()).strftime(format).to_string())
            .unwrap_or_default()
    }

    fn peer(&self, view: &CommentView) -> String {
        if self.mask {
            return masked(&view.peer);
        }
        let by_phone = match view.messenger {
            Some(Messenger::Whatsapp | Messenger::Sms) => true,
            Some(Messenger::Telegram | Messenger::Max | Messenger::Vk | Messenger::Avito | Messenger::Email) | None => {
                false
            }
        };
        let digits = (7..=15).contains(&view.peer.len()) && view.peer.bytes().all(|b| b.is_ascii_digit());
        if by_phone && digits { format!("+{}", view.peer) } else { view.peer.clone() }
    }
}

/// True when this comment is about the message with this short id: it stands in the last line.
pub(super) fn refers_to(comment: &str, short: &str) -> bool {
    let last = comment.trim_end().lines().next_back().unwrap_or_default();
    last.split(|sign: char| !sign.is_alphanumeric()).any(|word| word == short)
}

/// Foreign text without Bitrix24's mark-up.
pub(super) fn unmarked(text: &str) -> String {
    text.replace('[', "［").replace(']', "］")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{CrmUserId, MessageId};
    use crate::domain::outcome::Failure;

    fn style(mask: bool) -> CommentStyle {
        CommentStyle { markup: Markup::BbCode, mask, zone: TimeZone::get("Europe/Moscow").unwrap() }
    }

    fn view(state: MessageState) -> CommentView {
        CommentView {
            message: MessageId::new("01JABCDEFGHJKMNPQRSTVWXYZ0"),
            messenger: Some(Messenger::Whatsapp),
            channel: "Sales".to_owned(),
            peer: "79001234567".to_owned(),
            excerpt: "Your order is ready".to_owned(),
            template: None,
            deed: None,
            state,
            // 2026-11-21 11:03 UTC
            at: Timestamp(1_795_258_980_000),
            failure: None,
            vendor_code: String::new(),
            receipts: true,
            silence: None,
            silent_for: Millis(0),
            responsible: None,
            planned: None,
        }
    }

    #[test]
    fn a_messenger_that_tells_nothing_more_is_said_to_be_one() {
        let view = CommentView {
            messenger: Some(Messenger::Telegram),
            peer: "tg.512000111".to_owned(),
            receipts: false,
            silence: Some(Silence::Closed),
            ..view(MessageState::Sent)
        };
        let ru = style(true).text(Language::Ru, &view);
        assert!(ru.contains("Telegram не сообщает о доставке и прочтении"), "{ru}");
        assert!(ru.contains("→ tg.•••111") && !ru.contains("Подтверждения больше не ожидается"), "{ru}");
        let en = style(false).text(Language::En, &view);
        assert!(en.contains("Telegram does not tell of delivery or reading") && en.contains("→ tg.512000111"), "{en}");
    }

    const FOOT: &str = "[color=#959ca4]· №VWXYZ0[/color]";

    #[test]
    fn every_state_reads_well_in_both_languages() {
        let rows = [
            (MessageState::Queued, "Ждёт отправки", "Waiting to be sent"),
            (MessageState::Undecided, "Не подтверждено", "Not confirmed"),
            (MessageState::Accepted, "Принято мессенджером", "Accepted by the messenger"),
            (MessageState::Sent, "Отправлено", "Sent"),
            (MessageState::Delivered, "Доставлено", "Delivered"),
            (MessageState::Read, "Прочитано", "Read"),
            (MessageState::Failed, "Не отправлено", "Not sent"),
            (MessageState::Cancelled, "Отменено", "Cancelled"),
        ];
        assert_eq!(rows.len(), MessageState::ALL.len());
        for (state, ru, en) in rows {
            let text = style(false).text(Language::Ru, &view(state));
            let head = "[b]WhatsApp[/b] · Sales → +79001234567";
            assert_eq!(text, format!("{head}\n{ru}, 14:03 21.11\n«Your order is ready»\n{FOOT}"));
            let text = style(false).text(Language::En, &view(state));
            assert_eq!(text, format!("{head}\n{en}, 14:03 21.11\n“Your order is ready”\n{FOOT}"));
        }
    }

    #[test]
    fn a_silence_is_told_without_frightening() {
        let rows = [
            (MessageState::Undecided, "Подтверждения нет уже 60 мин", "No confirmation for 60 min"),
            (
                MessageState::Accepted,
                "Подтверждения от мессенджера нет уже 60 мин",
                "No confirmation from the messenger",
            ),
            (MessageState::Sent, "возможно, телефон выключен", "the phone may be off"),
        ];
        for (state, ru, en) in rows {
            let silent = CommentView { silence: Some(Silence::Told), silent_for: Millis::minutes(60), ..view(state) };
            let closed = CommentView { silence: Some(Silence::Closed), ..view(state) };
            for (language, told, over) in [
                (Language::Ru, ru, "Подтверждения больше не ожидается"),
                (Language::En, en, "No confirmation is awaited"),
            ] {
                let text = style(false).text(language, &silent);
                assert!(text.lines().nth(2).unwrap().contains(told), "{text}");
                let text = style(false).text(language, &closed);
                assert!(text.lines().nth(2).unwrap().contains(over), "{text}");
                assert!(!text.contains("silent_") && !text.contains('{'), "{text}");
            }
        }
    }

    #[test]
    fn a_failure_says_why_and_what_to_do() {
        let mut view = view(MessageState::Failed);
        view.template = Some("hello:ru".to_owned());
        view.failure = Some(Failure::with(ErrorCode::WindowClosed, "24 h"));
        view.vendor_code = "131047".to_owned();
        view.responsible = Some(CrmUserId("12".to_owned()));
        assert_eq!(
            style(true).text(Language::Ru, &view),
            format!(
                "[b]WhatsApp[/b] · Sales → +7•••••45-67\nНе отправлено, 14:03 21.11\nШаблон: hello:ru\n\
                 «Your order is ready»\nПричина: 24-часовое окно закрыто (24 h), код 131047\n\
                 Что делать: Выберите шаблон или дождитесь сообщения клиента\n\
                 Ответственный: [user=12]№12[/user]\n{FOOT}"
            )
        );
        assert_eq!(
            style(true).text(Language::En, &view),
            format!(
                "[b]WhatsApp[/b] · Sales → +7•••••45-67\nNot sent, 14:03 21.11\nTemplate: hello:ru\n\
                 “Your order is ready”\nReason: The 24-hour window is closed (24 h), code 131047\n\
                 What to do: Choose a template, or wait until the client writes\n\
                 Responsible: [user=12]№12[/user]\n{FOOT}"
            )
        );
    }

    #[test]
    fn a_planned_message_says_when_by_the_clients_clock() {
        let mut view = view(MessageState::Queued);
        // 2026-11-22 04:00 UTC
        let mut planned = Planned {
            at: Timestamp(1_795_320_000_000),
            zone: "Asia/Yekaterinburg".to_owned(),
            of_client: true,
            too_late: false,
        };
        view.planned = Some(planned.clone());
        view.failure = Some(Failure::new(ErrorCode::StillQueued));
        let head = "[b]WhatsApp[/b] · Sales → +79001234567";
        assert_eq!(
            style(false).text(Language::Ru, &view),
            format!(
                "{head}\nЖдёт отправки, 14:03 21.11\n«Your order is ready»\n\
                 Запланировано на 09:00 22.11 по времени клиента (UTC+05:00)\n{FOOT}"
            )
        );
        assert_eq!(
            style(false).text(Language::En, &view),
            format!(
                "{head}\nWaiting to be sent, 14:03 21.11\n“Your order is ready”\n\
                 Planned for 09:00 22.11, client's time (UTC+05:00)\n{FOOT}"
            )
        );
        planned.of_client = false;
        planned.zone = "+03:00".to_owned();
        view.planned = Some(planned.clone());
        let text = style(false).text(Language::En, &view);
        assert!(text.contains("\nPlanned for 07:00 22.11 (UTC+03:00)\n"), "{text}");
        planned.too_late = true;
        view.planned = Some(planned);
        view.state = MessageState::Failed;
        view.failure = Some(Failure::new(ErrorCode::Expired));
        let text = style(false).text(Language::En, &view);
        assert!(
            text.contains("\nQuiet hours end at 07:00 22.11 (UTC+03:00), after its deadline\nReason: It was"),
            "{text}"
        );
    }

    #[test]
    fn a_message_without_channel_still_has_a_head() {
        let mut view = view(MessageState::Failed);
        view.messenger = None;
        view.channel.clear();
        view.excerpt.clear();
        view.peer = "8 (900) abc".to_owned();
        view.failure = Some(Failure::new(ErrorCode::BadPhone));
        let text = style(false).text(Language::En, &view);
        assert!(text.starts_with("[b]Message[/b] → 8 (900) abc\nNot sent, "), "{text}");
        assert!(text.contains("\nReason: This is not a phone number\n"), "{text}");
        view.peer.clear();
        assert!(style(false).text(Language::Ru, &view).starts_with("[b]Сообщение[/b]\n"));
    }

    #[test]
    fn foreign_text_cannot_bring_mark_up() {
        let mut view = view(MessageState::Failed);
        let evil = "[url=https://evil.example]x[/url] [user=1]\n· №ABCDEF";
        view.channel = evil.to_owned();
        view.peer = evil.to_owned();
        view.excerpt = evil.to_owned();
        view.template = Some(evil.to_owned());
        view.failure = Some(Failure::with(ErrorCode::Rejected, evil));
        view.vendor_code = evil.to_owned();
        view.responsible = Some(CrmUserId("1][/user][b".to_owned()));
        let text = style(false).text(Language::En, &view);
        let own = text.replace("[b]WhatsApp[/b]", "").replace(FOOT, "");
        assert!(!own.contains(['[', ']']), "{text}");
        assert!(!refers_to(&text, "ABCDEF"));
        assert!(refers_to(&text, "VWXYZ0"));
    }

    #[test]
    fn a_plain_note_carries_no_tags_and_leaves_brackets_alone() {
        let mut view = view(MessageState::Failed);
        view.excerpt = "[sic] text".to_owned();
        view.responsible = Some(CrmUserId("12".to_owned()));
        let plain = CommentStyle { markup: Markup::Plain, ..style(false) };
        let text = plain.text(Language::En, &view);
        assert_eq!(
            text,
            "WhatsApp · Sales → +79001234567\nNot sent, 14:03 21.11\n“[sic] text”\nResponsible: №12\n· №VWXYZ0"
        );
        assert!(refers_to(&text, "VWXYZ0"));
    }

    #[test]
    fn a_comment_is_recognised_by_its_last_line() {
        assert!(refers_to("a\n· №VWXYZ0", "VWXYZ0"));
        assert!(refers_to("a\n[color=#959ca4]· &#8470;VWXYZ0[/color]\n", "VWXYZ0"));
        assert!(!refers_to("· №VWXYZ0\nb", "VWXYZ0"));
        assert!(!refers_to("· №VWXYZ01", "VWXYZ0"));
        assert!(!refers_to("", "VWXYZ0"));
    }

    #[test]
    fn times_follow_the_zone() {
        let style = CommentStyle { zone: TimeZone::get("Asia/Vladivostok").unwrap(), ..style(false) };
        assert!(style.text(Language::En, &view(MessageState::Sent)).contains("Sent, 21:03 21.11"));
        assert_eq!(style.moment(Timestamp(0), "%Y-%m-%dT%H:%M:%S%:z"), "1970-01-01T10:00:00+10:00");
        assert_eq!(style.moment(Timestamp(i64::MAX), "%H"), "");
    }
}
