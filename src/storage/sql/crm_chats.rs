//! Statements of what a CRM calls its chats and the people in them.

statements! {
    /// The portal whose chats are told of under this name.
    CHAT_SCOPE = "SELECT portal_id FROM registrations WHERE key = $1 AND fingerprint = $2";
    /// An operator has written first: the dialog gets the chat that the CRM has made. A chat in which the client has been
    /// shown already stays what it is.
    CHAT_BEGUN = "INSERT INTO chats (channel_id, peer, portal_id, messenger, place, crm_chat, crm_person, changed_ms)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (channel_id, peer) DO UPDATE SET portal_id = excluded.portal_id, messenger = excluded.messenger,
            place = excluded.place, crm_chat = excluded.crm_chat, crm_person = excluded.crm_person,
            changed_ms = excluded.changed_ms
        WHERE chats.portal_id <> excluded.portal_id OR chats.crm_person <> ''";
}
