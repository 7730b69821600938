//! The chunkservers' part: every chunk that the master knows, page by page. Each shard is asked of the disk that holds its slot and, while the
//! slot is moving, of the one that held it before.
//!
//! What is wrong is looked at once more with a fresh map and a fresh list, for chunks come and go and slots move meanwhile. With `--repair`
//! it is handed to the disk's own repair as a doubt, and waited for.

use super::Wanted;
use super::progress::Progress;
use super::report::Report;
use crate::commands::layout::{Place, Sight, disk, needed, places, reachable};
use crate::commands::link::{Link, Unanswered};
use anyhow::Result;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{ChunkId, TargetId};
use cairn_common::limits::{CHECKED_KEYS_MAX, CHUNK_PAGE_MAX, DOUBTED_KEYS_MAX, EXAMINED_KEYS_MAX};
use cairn_common::wire::chunkserver::{ChunkserverReply, ChunkserverRequest, ShardKey, ShardVerdict};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// Chunks of one page: with their shards some hundred KiB.
const PAGE: u32 = 512;
/// How long to wait before what is wrong is looked at once more.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether a repair is done.
const REPAIR_POLL: Duration = Duration::from_secs(1);
/// For how long a repair is waited for while nothing gets better.
const REPAIR_PATIENCE: Duration = Duration::from_secs(30);

/// A shard that is not as it should be.
#[derive(Debug, Clone)]
struct Flaw {
    place: Place,
    sight: Sight,
}

impl Flaw {
    /// Its disk is there, so that it can be repaired in place.
    fn is_here(&self) -> bool {
        matches!(self.sight, Sight::Missing | Sight::Damaged)
    }

    /// A second look may find it gone.
    fn may_pass(&self) -> bool {
        self.is_here() || self.sight == Sight::Busy
    }
}

/// A chunk with flaws.
#[derive(Debug, Clone)]
struct Patient {
    chunk: ChunkInfo,
    stored: usize,
    flaws: Vec<Flaw>,
}

impl Patient {
    fn good(&self) -> usize {
        self.stored - self.flaws.len()
    }

    fn is_lost(&self) -> bool {
        self.good() < needed(&self.chunk)
    }
}

/// The check under way.
struct Round<'a> {
    link: &'a mut Link,
    wanted: Wanted,
    report: &'a mut Report,
    progress: &'a mut Progress,
    /// Shards on each disk that does not answer, and why it does not.
    away: BTreeMap<Option<TargetId>, (u64, String)>,
}

pub async fn check(link: &mut Link, wanted: Wanted, report: &mut Report, progress: &mut Progress) -> Result<()> {
    let mut round = Round { link, wanted, report, progress, away: BTreeMap::new() };
    let mut from = Some(ChunkId([0; 32]));
    while let Some(start) = from {
        round.link.renew_map().await?;
        let (chunks, is_end, _) = round.link.chunks(start, None, PAGE).await?;
        round.page(&chunks).await?;
        from = chunks.last().filter(|_| !is_end).and_then(|last| last.id.next());
        round.show(from);
    }
    round.tell_away();
    Ok(())
}

impl Round<'_> {
    fn show(&mut self, at: Option<ChunkId>) {
        let what = if self.wanted.deep {
            format!("shards: {} MiB read", self.report.counts.bytes_hashed >> 20)
        } else {
            format!("shards: {} of {} chunks", self.report.counts.shards, self.report.counts.chunks)
        };
        self.progress.show(&what, at.map_or(1 << 32, |id| u64::from(id.prefix(32))), 1 << 32);
    }

    async fn page(&mut self, chunks: &[ChunkInfo]) -> Result<()> {
        self.report.counts.chunks += chunks.len() as u64;
        let first = self.look(chunks).await;
        self.report.counts.shards += chunks.iter().map(|chunk| places(&self.link.map, chunk).len() as u64).sum::<u64>();
        let mut patients = first.clone();
        if first.iter().flat_map(|patient| &patient.flaws).any(Flaw::may_pass) {
            self.link.runtime.sleep(SECOND_LOOK).await;
            patients = self.look_again(&first).await?;
        }
        let found = confirmed(first, &patients);
        if self.wanted.repair {
            patients = self.repair(patients).await?;
        }
        self.tell(&found, &patients);
        Ok(())
    }

    /// Those of the chunks that have flaws.
    async fn look(&mut self, chunks: &[ChunkInfo]) -> Vec<Patient> {
        let all: Vec<Vec<Place>> = chunks.iter().map(|chunk| places(&self.link.map, chunk)).collect();
        let shards: Vec<Place> = all.iter().flatten().copied().collect();
        let mut sights = self.ask(&shards, |place| place.slot.holder).await;
        // While a slot moves, most of its shards are still where they were.
        let elsewhere: Vec<usize> =
            (0..shards.len()).filter(|at| sights[*at] != Sight::Good && shards[*at].slot.previous.is_some()).collect();
        let moving: Vec<Place> = elsewhere.iter().map(|at| shards[*at]).collect();
        for (at, sight) in elsewhere.into_iter().zip(self.ask(&moving, |place| place.slot.previous).await) {
            if sight == Sight::Good {
                sights[at] = sight;
            }
        }
        let mut sights = sights.into_iter();
        let patient = |(chunk, places): (&ChunkInfo, Vec<Place>)| {
            let stored = places.len();
            let flaws = places.into_iter().zip(sights.by_ref()).filter(|(_, sight)| *sight != Sight::Good);
            Patient { chunk: *chunk, stored, flaws: flaws.map(|(place, sight)| Flaw { place, sight }).collect() }
        };
        chunks.iter().zip(all).map(patient).filter(|patient| !patient.flaws.is_empty()).collect()
    }

    /// Looks at the same chunks as they are now. Those that were forgotten, or are stored in another way since, are no patients.
    async fn look_again(&mut self, patients: &[Patient]) -> Result<Vec<Patient>> {
        self.link.renew_map().await?;
        let (Some(first), Some(last)) = (patients.first(), patients.last()) else { return Ok(Vec::new()) };
        let before: BTreeMap<ChunkId, ChunkInfo> = patients.iter().map(|patient| (patient.chunk.id, patient.chunk)).collect();
        let (mut present, mut from) = (Vec::new(), Some(first.chunk.id));
        while let Some(start) = from {
            let (chunks, is_end, _) = self.link.chunks(start, last.chunk.id.next(), CHUNK_PAGE_MAX).await?;
            from = chunks.last().filter(|_| !is_end).and_then(|last| last.id.next());
            present.extend(chunks.into_iter().filter(|chunk| before.get(&chunk.id) == Some(chunk)));
        }
        Ok(self.look(&present).await)
    }

    /// Asks each disk for its shards, all disks side by side. In the order of the shards.
    async fn ask(&mut self, shards: &[Place], disk_of: impl Fn(&Place) -> Option<TargetId>) -> Vec<Sight> {
        let mut sights = vec![Sight::Vacant; shards.len()];
        let mut by_disk: BTreeMap<TargetId, Vec<usize>> = BTreeMap::new();
        for (at, place) in shards.iter().enumerate() {
            if let Some(target) = disk_of(place) {
                by_disk.entry(target).or_default().push(at);
            }
        }
        let (link, deep) = (&*self.link, self.wanted.deep);
        let asked = by_disk.into_iter().map(|(target, numbers)| async move {
            let keys: Vec<ShardKey> = numbers.iter().map(|at| shards[*at].key).collect();
            let (sights, bytes) = ask_disk(link, target, &keys, deep).await;
            (numbers, sights, bytes)
        });
        for (numbers, answers, bytes) in join_all(asked).await {
            self.report.counts.bytes_hashed += bytes;
            for (at, sight) in numbers.into_iter().zip(answers) {
                sights[at] = sight;
            }
        }
        sights
    }

    /// Hands what can be repaired to the disks, and waits while it gets less. What is left in the end.
    async fn repair(&mut self, mut patients: Vec<Patient>) -> Result<Vec<Patient>> {
        let open = |patients: &[Patient]| -> usize {
            let mendable = patients.iter().filter(|patient| !patient.is_lost());
            mendable.map(|patient| patient.flaws.iter().filter(|flaw| flaw.is_here()).count()).sum()
        };
        let mut left = open(&patients);
        let mut patience = self.link.runtime.now().plus(REPAIR_PATIENCE);
        while left > 0 && self.link.runtime.now() < patience {
            self.progress.show(&format!("waiting for the repair of {left} shards"), 0, 1);
            self.doubt(&patients).await;
            self.link.runtime.sleep(REPAIR_POLL).await;
            patients = self.look_again(&patients).await?;
            let now_left = open(&patients);
            if now_left < left {
                patience = self.link.runtime.now().plus(REPAIR_PATIENCE);
            }
            left = now_left;
        }
        Ok(patients)
    }

    async fn doubt(&self, patients: &[Patient]) {
        let mut by_disk: BTreeMap<TargetId, Vec<ShardKey>> = BTreeMap::new();
        for flaw in patients.iter().flat_map(|patient| &patient.flaws).filter(|flaw| flaw.is_here()) {
            if let Some(holder) = flaw.place.slot.holder {
                by_disk.entry(holder).or_default().push(flaw.place.key);
            }
        }
        for (target, keys) in by_disk {
            let Ok(address) = reachable(&self.link.map, target).map(|target| target.address) else { continue };
            for keys in keys.chunks(DOUBTED_KEYS_MAX) {
                // Without an answer the shards stay as they are, and are told as such.
                let _ = self.link.ask_chunkserver(address, &ChunkserverRequest::Doubt { target, keys: keys.to_vec() }).await;
            }
        }
    }

    /// Reports what was found, and which of it is still there.
    fn tell(&mut self, found: &[Patient], left: &[Patient]) {
        self.progress.clear();
        let left: BTreeMap<ChunkId, &Patient> = left.iter().map(|patient| (patient.chunk.id, patient)).collect();
        for patient in found {
            let now = left.get(&patient.chunk.id);
            if let Some(lost) = now.filter(|patient| patient.is_lost()) {
                let (chunk, good, stored, needed) = (lost.chunk.id, lost.good(), lost.stored, needed(&lost.chunk));
                let sentence = format!("chunk {chunk} can't be read: {good} of its {stored} shards are good, {needed} are needed");
                self.report.add_lost(chunk, sentence);
            }
            for flaw in &patient.flaws {
                let is_left = now.is_some_and(|now| now.flaws.iter().any(|other| other.place.key == flaw.place.key));
                self.tell_flaw(flaw, patient, self.wanted.repair && !is_left);
            }
        }
    }

    fn tell_flaw(&mut self, flaw: &Flaw, patient: &Patient, is_mended: bool) {
        let counts = &mut self.report.counts;
        let (class, what) = match &flaw.sight {
            Sight::Good => return,
            Sight::Missing => {
                counts.shards_missing += 1;
                ("shard-missing", "missing on")
            }
            Sight::Damaged => {
                counts.shards_damaged += 1;
                ("shard-damaged", "damaged on")
            }
            Sight::Away(reason) => {
                counts.shards_away += 1;
                self.away.entry(flaw.place.slot.holder).or_insert((0, reason.clone())).0 += 1;
                return;
            }
            Sight::Busy => {
                counts.shards_away += 1;
                self.away.entry(flaw.place.slot.holder).or_insert((0, "it is too busy".to_owned())).0 += 1;
                return;
            }
            Sight::Vacant => {
                counts.shards_away += 1;
                self.away.entry(None).or_insert((0, "nobody holds its slot".to_owned())).0 += 1;
                return;
            }
        };
        let (index, stored, chunk) = (flaw.place.key.index, patient.stored, patient.chunk.id);
        let place = disk(&self.link.map, flaw.place.slot.holder);
        let sentence = format!("shard {index} of the {stored} of chunk {chunk} is {what} {place}");
        self.report.add_shard_problem(class, sentence, Some(chunk), is_mended);
    }

    /// One sentence for each disk that does not answer, not one for each of its shards.
    fn tell_away(&mut self) {
        self.progress.clear();
        for (target, (shards, reason)) in std::mem::take(&mut self.away) {
            let (class, sentence) = match target {
                Some(_) => ("disk-away", format!("{} does not answer ({reason}): {shards} shards are there", disk(&self.link.map, target))),
                None => ("slot-vacant", format!("{shards} shards are nowhere: no disk holds their slots")),
            };
            self.report.add_shard_problem(class, sentence, None, false);
        }
    }
}

/// What the second look confirms, and what was damaged at the first: wrong bytes are no matter of timing, but may be repaired by now.
fn confirmed(first: Vec<Patient>, second: &[Patient]) -> Vec<Patient> {
    let confirm = |mut patient: Patient| {
        let again = second.iter().find(|other| other.chunk == patient.chunk);
        let again = |flaw: &Flaw| again.and_then(|again| again.flaws.iter().find(|other| other.place.key == flaw.place.key));
        patient.flaws = patient
            .flaws
            .into_iter()
            .filter_map(|flaw| if flaw.sight == Sight::Damaged { Some(flaw) } else { again(&flaw).cloned() })
            .collect();
        (!patient.flaws.is_empty()).then_some(patient)
    };
    first.into_iter().filter_map(confirm).collect()
}

/// What a disk says of its shards, and how many bytes it read for it.
async fn ask_disk(link: &Link, target: TargetId, keys: &[ShardKey], deep: bool) -> (Vec<Sight>, u64) {
    let (mut sights, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    let address = match reachable(&link.map, target) {
        Ok(found) => found.address,
        Err(reason) => return (vec![Sight::Away(reason); keys.len()], 0),
    };
    for keys in keys.chunks(if deep { EXAMINED_KEYS_MAX } else { CHECKED_KEYS_MAX }) {
        let request = match deep {
            true => ChunkserverRequest::Examine { target, keys: keys.to_vec() },
            false => ChunkserverRequest::Check { target, keys: keys.to_vec() },
        };
        let answer = link.ask_chunkserver(address, &request).await;
        sights.extend(match answer {
            Ok(ChunkserverReply::Checked { present }) if present.len() == keys.len() => {
                present.into_iter().map(|is_there| if is_there { Sight::Good } else { Sight::Missing }).collect()
            }
            Ok(ChunkserverReply::Examined { verdicts, bytes: read }) if verdicts.len() == keys.len() => {
                bytes += read;
                verdicts.into_iter().map(sight).collect::<Vec<_>>()
            }
            Ok(other) => vec![Sight::Away(format!("it gave a strange answer: {other:?}")); keys.len()],
            Err(Unanswered::Busy) => vec![Sight::Busy; keys.len()],
            Err(Unanswered::Away(reason)) => vec![Sight::Away(reason); keys.len()],
        });
    }
    (sights, bytes)
}

fn sight(verdict: ShardVerdict) -> Sight {
    match verdict {
        ShardVerdict::Sound => Sight::Good,
        ShardVerdict::Missing => Sight::Missing,
        ShardVerdict::Damaged => Sight::Damaged,
        ShardVerdict::Unknown => Sight::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::{Flaw, Patient, confirmed, places};
    use crate::commands::layout::Sight;
    use crate::commands::layout::tests::{chunk, map};

    fn patient(sights: &[(usize, Sight)]) -> Patient {
        let chunk = chunk(4 << 20, "4+2", &[0, 1, 2, 3, 4, 5]);
        let places = places(&map(), &chunk);
        let flaws = sights.iter().map(|(at, sight)| Flaw { place: places[*at], sight: sight.clone() }).collect();
        Patient { chunk, stored: places.len(), flaws }
    }

    #[test]
    fn more_flaws_than_parity_are_a_loss() {
        assert!(!patient(&[(0, Sight::Missing), (4, Sight::Damaged)]).is_lost());
        assert!(patient(&[(0, Sight::Missing), (4, Sight::Damaged), (5, Sight::Vacant)]).is_lost());
    }

    #[test]
    fn what_passes_by_itself_was_no_flaw_unless_bytes_were_wrong() {
        let first = patient(&[(0, Sight::Missing), (1, Sight::Missing), (2, Sight::Busy), (3, Sight::Damaged)]);
        let second = patient(&[(1, Sight::Missing)]);
        let found = confirmed(vec![first.clone()], &[second]);
        let flaws: Vec<(u8, &Sight)> = found[0].flaws.iter().map(|flaw| (flaw.place.key.index, &flaw.sight)).collect();
        assert_eq!(flaws, [(1, &Sight::Missing), (3, &Sight::Damaged)]);
        let only_missing = patient(&[(0, Sight::Missing)]);
        assert!(confirmed(vec![only_missing], &[]).is_empty());
    }
}
