//! What the pages inside a CRM read, and what a cleaned portal takes along.

use super::on_both;

on_both! {
    a_portal_s_signs_are_kept_by_kind
    a_page_reads_the_messages_of_its_own_portal
    a_cleaned_portal_takes_its_letters_along
    a_pass_opens_only_as_a_pass
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, message};
    use crate::domain::command::WaitFor;
    use crate::domain::ids::{ChannelId, MessageId, PortalId};
    use crate::domain::time::Timestamp;
    use crate::storage::messages::{Created, NewMessage};
    use crate::storage::pages::Sign;

    const PEER: &str = "79161234567";

    /// What somebody writes on a card's page.
    fn letter(portal: &PortalId, channel: &ChannelId, id: &str) -> NewMessage {
        let mut letter = message(&command(portal, id, WaitFor::Accepted), channel, PEER, None);
        letter.record.command = None;
        letter
    }

    async fn keep(world: &World, letter: NewMessage) -> MessageId {
        match world.storage.create_message(letter, None).await.unwrap() {
            Created::New(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn a_portal_s_signs_are_kept_by_kind(world: &World) {
        let (portal, _) = furnished(world).await;
        let storage = &world.storage;
        let signs = storage.signs(&portal).await.unwrap();
        assert_eq!((signs.last(Sign::Event), signs.tokens), (None, Some(Timestamp(1_000_000))));
        storage.note_sign(&portal, Sign::Event).await.unwrap();
        world.clock.set(1_000_500);
        // Within a minute nothing is written again, but for the test somebody waits for.
        storage.note_sign(&portal, Sign::Event).await.unwrap();
        storage.note_sign(&portal, Sign::Test).await.unwrap();
        world.clock.set(1_000_700);
        storage.note_sign(&portal, Sign::Test).await.unwrap();
        let signs = storage.signs(&portal).await.unwrap();
        assert_eq!(signs.last(Sign::Event), Some(Timestamp(1_000_000)));
        assert_eq!(signs.last(Sign::Test), Some(Timestamp(1_000_700)));
        assert_eq!(signs.last(Sign::Robot), None);
        storage.uninstall_portal(&portal).await.unwrap();
        assert_eq!(storage.signs(&portal).await.unwrap().tokens, None);
    }

    pub(super) async fn a_page_reads_the_messages_of_its_own_portal(world: &World) {
        let (portal, channel) = furnished(world).await;
        let storage = &world.storage;
        let first = keep(world, letter(&portal, &channel, "a")).await;
        let second = keep(world, letter(&portal, &channel, "b")).await;
        let mut of_program = letter(&portal, &channel, "c");
        of_program.record.portal = None;
        let third = keep(world, of_program).await;
        let found = storage.messages_with(&portal, PEER, 10).await.unwrap();
        let ids: Vec<&MessageId> = found.iter().map(|history| &history.record.id).collect();
        assert_eq!(ids, [&third, &second, &first], "newest first");
        assert_eq!(storage.messages_with(&portal, PEER, 1).await.unwrap().len(), 1);
        assert!(storage.messages_with(&PortalId::new("OTHER"), PEER, 10).await.unwrap().is_empty());
        assert!(storage.messages_with(&portal, "79260000000", 10).await.unwrap().is_empty());
        let card = found.last().unwrap().record.card.unwrap();
        assert_eq!(storage.written_to(&portal, card).await.unwrap(), [(channel, PEER.to_owned())]);
        assert!(storage.known_person(&portal, PEER).await.unwrap().is_empty(), "nobody has written yet");
    }

    pub(super) async fn a_cleaned_portal_takes_its_letters_along(world: &World) {
        let (portal, channel) = furnished(world).await;
        let storage = &world.storage;
        let letter_id = keep(world, letter(&portal, &channel, "a")).await;
        let mut of_program = letter(&portal, &channel, "b");
        of_program.record.portal = None;
        let kept = keep(world, of_program).await;
        storage.note_sign(&portal, Sign::Robot).await.unwrap();
        storage.uninstall_portal(&portal).await.unwrap();
        storage.clean_portal(&portal).await.unwrap();
        assert!(storage.find_message(&letter_id).await.unwrap().is_none());
        assert!(storage.find_message(&kept).await.unwrap().is_some(), "what a program sent is not the portal's");
        assert_eq!(storage.signs(&portal).await.unwrap().last(Sign::Robot), None);
    }

    pub(super) async fn a_pass_opens_only_as_a_pass(world: &World) {
        let sealed = world.storage.seal_pass("who").unwrap();
        assert_eq!(world.storage.open_pass(&sealed).as_deref(), Some("who"));
        assert_ne!(world.storage.seal_pass("who").unwrap(), sealed);
        for broken in ["", "who", &sealed[1..], &sealed.replace('.', "-"), &format!("{sealed}A")] {
            assert_eq!(world.storage.open_pass(broken), None, "{broken}");
        }
    }
}
