//! Words of consent screens, on both databases.

use super::on_both;

on_both! {
    a_word_is_good_once
}

mod promises {
    use super::super::World;
    use crate::domain::time::{Clock as _, Millis};

    pub(super) async fn a_word_is_good_once(world: &World) {
        let storage = &world.storage;
        let first = storage.begin_authorization("main").await.unwrap();
        let second = storage.begin_authorization("main").await.unwrap();
        assert_ne!(first, second);
        assert!(first.len() == 64 && first.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(!storage.end_authorization("other", &first).await.unwrap());
        assert!(storage.end_authorization("main", &first).await.unwrap());
        assert!(!storage.end_authorization("main", &first).await.unwrap());
        assert!(!storage.end_authorization("main", "guessed").await.unwrap());
        world.clock.set(world.clock.now().plus(Millis::hours(1)).0);
        assert!(!storage.end_authorization("main", &second).await.unwrap());
        let third = storage.begin_authorization("main").await.unwrap();
        assert!(storage.end_authorization("main", &third).await.unwrap());
    }
}
