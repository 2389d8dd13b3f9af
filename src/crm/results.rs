//! Results of actions in the words of `product.md` §2, for both CRMs.

use crate::domain::effect::ActionResult;
use crate::domain::language::Language;
use crate::i18n;

/// One line per recipient: `chatId:Y`, or `chatId:N:[error_code] what it means`.
pub(super) fn detail(language: Language, result: &ActionResult) -> String {
    let lines: Vec<String> = result
        .recipients
        .iter()
        .map(|recipient| match &recipient.outcome {
            Ok(()) => format!("{}:Y", recipient.chat_id),
            Err(failure) => {
                let message = i18n::error(language, failure.code, &failure.detail);
                format!("{}:N:[{}] {message}", recipient.chat_id, failure.code.code())
            }
        })
        .collect();
    lines.join("\n")
}
