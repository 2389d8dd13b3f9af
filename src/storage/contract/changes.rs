//! What operators do to messages written earlier: which of several changes counts, whatever the order they come in.

use super::on_both;

on_both! {
    the_latest_change_has_the_turn_and_a_deletion_keeps_it
    an_author_who_was_refused_is_remembered_and_accounts_for_no_echo
}

mod promises {
    use super::super::World;
    use super::super::things::furnished;
    use crate::domain::channel::Messenger;
    use crate::domain::chat::{AnswerChange, ChatKey, ChatReference, OperatorMessage};
    use crate::domain::ids::{CommandId, CrmUserId, MessageId};
    use crate::domain::markup::Markup;
    use crate::domain::message::ChangeKind;
    use crate::domain::time::Timestamp;
    use crate::storage::db::args;
    use crate::storage::mirrors::MirrorCall;

    pub(super) async fn the_latest_change_has_the_turn_and_a_deletion_keeps_it(world: &World) {
        let (portal, channel) = furnished(world).await;
        let answer = OperatorMessage {
            chat: ChatKey { channel, peer: "tg.5".into() },
            messenger: Messenger::Telegram,
            place: "7".into(),
            reference: ChatReference { chat: "1767".into(), message: "86497".into() },
            author: None,
            text: Markup::default(),
            files: Vec::new(),
            written: None,
            echo_of: None,
            change: None,
        };
        let storage = &world.storage;
        for (command, kind, raised, takes) in [
            ("A", ChangeKind::Edit, 10, true),
            ("B", ChangeKind::Edit, 12, true),
            // It was raised earlier, and comes later.
            ("C", ChangeKind::Edit, 11, false),
            // Planned again after a crash.
            ("B", ChangeKind::Edit, 12, true),
            ("D", ChangeKind::Edit, 12, true),
            ("E", ChangeKind::Withdraw, 9, true),
            ("F", ChangeKind::Edit, 99, false),
            ("E", ChangeKind::Withdraw, 9, true),
        ] {
            let change = AnswerChange { kind, of: Vec::new(), raised: Timestamp(raised) };
            let taken = storage.take_change(&portal, &CommandId::new(command), &answer, &change).await.unwrap();
            assert_eq!(taken, takes, "{command} {raised}");
        }
        for (command, stands) in [("A", false), ("D", false), ("E", true), ("F", false)] {
            assert_eq!(storage.change_stands(&CommandId::new(command)).await.unwrap(), stands, "{command}");
        }
    }

    pub(super) async fn an_author_who_was_refused_is_remembered_and_accounts_for_no_echo(world: &World) {
        let (portal, channel) = furnished(world).await;
        let storage = &world.storage;
        let row: &'static str = Box::leak(
            format!(
                "insert INTO chat_mirrors (message_id, channel_id, peer, portal_id, author, print, calls, heard, echoes, \
                 until_ms, asked_ms) VALUES ('msg_1', '{channel}', 'tg.5', '{portal}', '', '', 0, 0, ',', 0, 1)"
            )
            .into_boxed_str(),
        );
        world.db.write(row, args![]).await.unwrap();
        let message = MessageId::stored("msg_1".into());
        let call =
            |author: &str| MirrorCall { message: message.clone(), author: CrmUserId(author.into()), print: "p".into() };
        storage.begin_mirrors(&[call("7")]).await.unwrap();
        storage.refuse_author(&message, &CrmUserId("7".into())).await.unwrap();
        storage.begin_mirrors(&[call("1")]).await.unwrap();
        let chat = ChatKey { channel, peer: "tg.5".into() };
        let claim = async |author: &str, number: &str| {
            let told = (number, Timestamp(1));
            storage.claim_echo(&portal, &chat, &CrmUserId(author.into()), "p", told).await.unwrap()
        };
        assert_eq!(claim("7", "100").await, None, "nothing was shown in this name");
        assert_eq!(claim("1", "101").await, Some(message.clone()));
        assert_eq!(claim("1", "102").await, None, "the same words written by hand are no echo");
    }
}
