//! Statements of lines that are senders of short messages.

statements! {
    /// Senders of a portal whose lines it still may use, with the names of the lines.
    SMS_SENDERS = "SELECT s.messenger, s.line_id, s.template, l.name FROM sms_senders s
        JOIN portal_lines p ON p.portal_id = s.portal_id AND p.line_id = s.line_id JOIN lines l ON l.id = s.line_id
        WHERE s.portal_id = $1 ORDER BY s.messenger, s.line_id";
    /// A line is a sender.
    SMS_SENDER_PUT = "INSERT INTO sms_senders (portal_id, messenger, line_id, template, changed_ms)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (portal_id, messenger, line_id)
        DO UPDATE SET template = excluded.template, changed_ms = excluded.changed_ms";
    /// It is none any more.
    SMS_SENDER_DROP = "DELETE FROM sms_senders WHERE portal_id = $1 AND messenger = $2 AND line_id = $3";
    /// Deletes a portal's senders.
    CLEAN_SMS_SENDERS = "DELETE FROM sms_senders WHERE portal_id = $1";
}
