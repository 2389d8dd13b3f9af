//! Lists of messages by channel and state: bounded looks, and nothing is left out.

use super::on_both;

on_both! {
    a_list_by_state_looks_at_a_bounded_number_of_messages_and_goes_on
}

mod promises {
    use super::super::World;
    use super::super::things::{command, furnished, message};
    use crate::domain::command::WaitFor;
    use crate::domain::outcome::{ErrorCode, Failure};
    use crate::storage::messages::MessageFilter;
    use crate::storage::plan::Plan;

    pub(super) async fn a_list_by_state_looks_at_a_bounded_number_of_messages_and_goes_on(world: &World) {
        let (portal, channel) = furnished(world).await;
        let command = command(&portal, "k1", WaitFor::Accepted);
        world.storage.accept(command.clone()).await.unwrap();
        // The oldest of seven and the one in the middle have failed.
        let failed = |nth: usize| (nth.is_multiple_of(3) && nth < 6).then(|| Failure::new(ErrorCode::NoRecipient));
        let messages = (0..7).map(|nth| message(&command, &channel, &format!("790{nth}"), failed(nth)));
        let plan = Plan { command: command.id.clone(), waits: true, messages: messages.collect() };
        world.storage.plan(plan).await.unwrap();
        let mut filter = MessageFilter { state: Some("failed".into()), limit: 10, ..MessageFilter::default() };
        let mut pages = Vec::new();
        loop {
            let walked = world.storage.walk_messages_by(&filter, 2).await.unwrap();
            pages.push(walked.found.iter().map(|found| found.record.peer.clone()).collect::<Vec<_>>());
            match walked.rest {
                Some(rest) => filter.before = Some(rest),
                None => break,
            }
        }
        assert_eq!(pages, [vec![], vec!["7903".to_owned()], vec![], vec!["7900".to_owned()]]);
        let channel = MessageFilter { channel: Some(channel), limit: 3, ..MessageFilter::default() };
        let walked = world.storage.walk_messages_by(&channel, 100).await.unwrap();
        assert_eq!((walked.found.len(), walked.rest), (3, None), "nothing is older than what was looked at");
    }
}
