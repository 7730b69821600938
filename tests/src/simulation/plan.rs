//! What kind of world a seed is: how large, and how much is going to break.

use super::dice::Dice;
use cairn_common::scheme::Scheme;
use cairn_runtime::sim::World;
use std::time::Duration;

/// How much breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// Nothing: everything must be exact.
    Calm,
    /// Of the chunkservers never more than the scheme survives, always the same ones; the master, clients and the network as they come. No
    /// operation may fail.
    Tolerable,
    /// Any number of chunkservers are away at the same time, but only so many lose what they hold. Operations may give EIO meanwhile.
    Severe,
    /// In the end everybody loses power at once.
    Blackout,
}

/// What a seed stands for.
#[derive(Debug, Clone)]
pub struct Plan {
    pub mood: Mood,
    pub scheme: Scheme,
    pub chunkservers: usize,
    pub clients: usize,
    /// Operations of each client while things break, and afterwards.
    pub steps: usize,
    pub steps_after: usize,
    /// Rounds of trouble.
    pub rounds: usize,
    /// Chunkservers whose disks may harm what they hold: at most as many as the scheme survives.
    pub weak: Vec<usize>,
    /// Whether clients remove files and write them again about the time when their chunks are collected; takes hours of virtual time.
    pub patience: bool,
    /// Wall clocks differ by up to so much.
    pub skew: Duration,
}

impl Plan {
    /// The plan of a world.
    pub fn draw(world: &World) -> Self {
        let dice = Dice::of(world, "plan");
        let mood = match dice.below(100) {
            0..10 => Mood::Calm,
            10..70 => Mood::Tolerable,
            70..85 => Mood::Severe,
            _ => Mood::Blackout,
        };
        let (data, parity) = *dice.pick(&[(4, 2), (4, 2), (2, 1), (2, 2), (1, 2)]);
        let scheme = Scheme::new(data, parity).expect("a scheme of the list");
        let chunkservers = usize::from(scheme.shards()) + dice.index(2);
        let mut servers: Vec<usize> = (0..chunkservers).collect();
        let weak = (0..scheme.parity_shards()).map(|_| servers.remove(dice.index(servers.len()))).collect();
        Self {
            mood,
            scheme,
            chunkservers,
            clients: 1 + dice.index(3),
            steps: 25 + dice.index(30),
            steps_after: 8,
            rounds: if mood == Mood::Calm { 0 } else { 3 + dice.index(4) },
            weak,
            patience: dice.percent(8),
            skew: if dice.percent(40) { dice.millis(1, 5_000) } else { Duration::ZERO },
        }
    }

    pub fn has_blackout(&self) -> bool {
        self.mood == Mood::Blackout
    }
}
