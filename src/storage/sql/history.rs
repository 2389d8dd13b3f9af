//! Statements of lists of messages.

statements! {
    /// The id of a message so many messages back.
    MESSAGE_AFTER_MANY = "SELECT id FROM messages WHERE id < $1 ORDER BY id DESC LIMIT 1 OFFSET $2";
    /// History of a channel or in a state, newest first, before the id `$3` and not beyond `$5`. Empty text is "any".
    MESSAGES_WALKED = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m
        WHERE ($1 = '' OR m.channel_id = $1) AND ($2 = '' OR m.state = $2) AND m.id < $3 AND m.id >= $5
        ORDER BY m.id DESC LIMIT $4");
}
