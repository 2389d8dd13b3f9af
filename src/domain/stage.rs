//! Stages that cards go through, and robots that should have called there.

use super::ids::CommandId;
use super::portal::{CardKind, CardRef};
use super::time::Timestamp;

/// A card entered a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageEntry {
    /// The CRM's number of the entry; grows with time within a kind of card.
    pub id: i64,
    /// The card.
    pub card: CardRef,
    /// The stage, in the CRM's own words (`C1:NEW`).
    pub stage: String,
    /// When, by the CRM's clock.
    pub entered: Timestamp,
}

/// A page of entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagePage {
    /// The entries, oldest first.
    pub entries: Vec<StageEntry>,
    /// There are more behind the last one.
    pub more: bool,
}

/// What is done about calls of robots that never came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum LostMode {
    /// They are not looked for.
    Off,
    /// They are shown, and a person decides.
    #[default]
    Ask,
    /// What can be done without guessing is done.
    Replay,
}

impl LostMode {
    /// The word in the API and the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ask => "ask",
            Self::Replay => "replay",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        [Self::Off, Self::Ask, Self::Replay].into_iter().find(|mode| mode.code() == code)
    }
}

/// What became of a call that did not come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LostState {
    /// Nobody has decided yet.
    Open,
    /// Its work was done without it.
    Replayed,
    /// It came after all.
    Came,
    /// The card stands elsewhere by now, or is gone.
    MovedOn,
    /// A person said that nothing is to be done.
    Dismissed,
}

impl LostState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Open, Self::Replayed, Self::Came, Self::MovedOn, Self::Dismissed];

    /// The word in the API and the database.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed => "replayed",
            Self::Came => "came",
            Self::MovedOn => "moved_on",
            Self::Dismissed => "dismissed",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

/// A robot that has called for cards on a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageRobot {
    /// Kind of the cards.
    pub kind: CardKind,
    /// The stage.
    pub stage: String,
    /// The robot, in the CRM's own words.
    pub robot: String,
    /// For so many entries it called.
    pub seen: i64,
    /// For so many it did not, though robots of the portal were heard at that time: it may have a condition.
    pub skipped: i64,
    /// Its last call.
    pub command: CommandId,
    /// The card of that call.
    pub card: CardRef,
    /// Digest of the work asked for.
    pub print: String,
    /// So many calls in a row, each for another card than the one before, asked for the same work.
    pub same: i64,
    /// When it last called.
    pub seen_at: Timestamp,
}

impl StageRobot {
    /// A robot is expected on a stage after so many calls: one or two may be late ones for the stage before.
    const KNOWN_FROM: i64 = 3;
    /// Calls for so many cards asked for the same: nothing in it was filled in from the card. Two clients of one name may stand
    /// one behind the other, ten hardly.
    const SAME_FROM: i64 = 10;
    /// A robot that leaves out more than one entry in so many has a condition.
    const SKIPS_AT_MOST: i64 = 5;

    /// It is expected to call.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.seen >= Self::KNOWN_FROM
    }

    /// A call of it that did not come was lost, and not left out by the robot's own condition.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.skipped * Self::SKIPS_AT_MOST <= self.seen + self.skipped
    }

    /// Its work is the same for every card, so it is known without the call.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.same >= Self::SAME_FROM
    }
}

/// An entry into a stage for which a robot did not call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostCall {
    /// Ours: made of the entry and the robot, so that it is found once however often one looks.
    pub id: String,
    /// The card.
    pub card: CardRef,
    /// The stage it entered.
    pub stage: String,
    /// The robot.
    pub robot: String,
    /// When it entered, by the CRM's clock.
    pub entered: Timestamp,
    /// When the call was missed.
    pub found: Timestamp,
    /// False when the robot may have had a condition.
    pub sure: bool,
    /// What became of it.
    pub state: LostState,
}

impl LostCall {
    /// What makes the work of this call unique in its portal, whether it is done without the call or the call comes
    /// after all.
    #[must_use]
    pub fn dedupe_key(&self) -> String {
        format!("lost:{}", self.id)
    }

    /// True for a key of [`LostCall::dedupe_key`].
    #[must_use]
    pub fn is_key(key: &str) -> bool {
        key.starts_with("lost:")
    }
}
