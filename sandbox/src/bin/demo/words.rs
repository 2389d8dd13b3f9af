//! What is printed, in Russian and English.

use std::time::Duration;

/// The language of the terminal.
pub(crate) struct Words {
    pub(crate) russian: bool,
}

/// Facts of a demo that is ready.
pub(crate) struct Ready<'a> {
    pub(crate) page: &'a str,
    pub(crate) took: Duration,
    pub(crate) api: &'a str,
    pub(crate) token: &'a str,
    pub(crate) frame: &'a str,
    pub(crate) log: &'a str,
    pub(crate) stages: &'a [String; 3],
}

impl Words {
    fn pick(&self, russian: &'static str, english: &'static str) -> &'static str {
        if self.russian { russian } else { english }
    }

    pub(crate) fn building(&self) -> &'static str {
        self.pick(
            "Собираю сервис (первый раз это несколько минут)…",
            "Building the service (the first time takes minutes)…",
        )
    }

    pub(crate) fn starting(&self) -> &'static str {
        self.pick("Запускаю…", "Starting…")
    }

    pub(crate) fn stopping(&self) -> &'static str {
        self.pick("Останавливаю…", "Stopping…")
    }

    pub(crate) fn died(&self, status: &str, log: &str, tail: &str) -> String {
        if self.russian {
            format!("сервис завершился сам ({status}). Последние строки журнала {log}:\n{tail}")
        } else {
            format!("the service has ended by itself ({status}). Last lines of {log}:\n{tail}")
        }
    }

    /// The text a started demo ends with. The line `open http://…/` is for programs too.
    pub(crate) fn ready(&self, ready: &Ready<'_>) -> String {
        let Ready { page, api, token, frame, log, stages: [confirmed, collect, review], .. } = ready;
        let seconds = ready.took.as_secs_f32();
        if self.russian {
            format!(
                "
Готово за {seconds:.1} с. Откройте в браузере:

open {page}

Что попробовать:
  1. Перетащите сделку в «{confirmed}»: клиенту уйдёт шаблон, а на карточке появится «Доставлено», затем «Прочитано».
  2. Затем в «{collect}»: 24-часовое окно закрыто, поэтому вместо текста уйдёт запасной шаблон. Нажмите в телефоне
     его кнопку или напишите ответ: окно откроется.
  3. «{review}» без запасного шаблона: при закрытом окне отказ с советом, при открытом сообщение уйдёт.
  4. «Сбои и нагрузка»: оборвите ответ WhatsApp или перенесите 1000 сделок сразу и следите, чтобы дублей было 0.

API               {api}/api/v1  (описание: {api}/api/openapi.json)
Токен             {token}
Страница в портале {frame}
Журнал сервиса    {log}
Остановить        Ctrl-C
"
            )
        } else {
            format!(
                "
Ready in {seconds:.1} s. Open in a browser:

open {page}

What to try:
  1. Drag a deal to “{confirmed}”: the client gets a template, and the card says “Delivered”, then “Read”.
  2. Then to “{collect}”: the 24-hour window is closed, so a fallback template goes out instead of the text. Tap its
     button on the phone or write an answer: the window opens.
  3. “{review}” has no fallback: refused with advice while the window is closed, sent once it is open.
  4. “Faults and load”: cut WhatsApp's answers or move 1000 deals at once, and watch the duplicates stay at 0.

API               {api}/api/v1  (described in {api}/api/openapi.json)
Token             {token}
Page in the portal {frame}
Service log       {log}
To stop           Ctrl-C
"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_stands_on_a_line_of_its_own_in_both_languages() {
        for russian in [true, false] {
            let stages = ["a", "b", "c"].map(str::to_owned);
            let ready = Ready {
                page: "http://127.0.0.1:1/",
                took: Duration::from_millis(1500),
                api: "http://127.0.0.1:2",
                token: "t",
                frame: "http://127.0.0.1:3/frame",
                log: "/tmp/x",
                stages: &stages,
            };
            let text = Words { russian }.ready(&ready);
            assert!(text.lines().any(|line| line == "open http://127.0.0.1:1/"), "{text}");
        }
    }
}
