//! Placement: which target holds which slot of which placement group. A pure function of the targets, of what was before,
//! and of a seed; the master puts its result into the cluster map.
//!
//! What it promises, strongest first:
//! 1. No target holds two slots of a group. A slot is vacant only if there are fewer targets than slots.
//! 2. Failure domains are kept apart as far as their number allows: the slots of a group are spread over the widest domains
//!    first (racks), within those over the next (hosts), and so on. No domain holds more slots of a group than it must.
//! 3. Targets hold slots in proportion to their weight, within `tolerance` (3 % and a slot), as far as 1 and 2
//!    leave a choice. A small domain that 2 needs in every group gets more than its weight: durability goes before balance.
//! 4. Little moves: a holder stays unless 1, 2 or 3 ask it to go. While a slot is on its way to a new holder, 3 asks for nothing but
//!    that it goes back: balance waits until the move is done.
//! 5. Each target is found about equally often in each position of its groups, so that data and parity are spread alike.
//!    Only slots that are new anyway are arranged for this; nothing moves for it.
//!
//! How: failure domains form a tree whose leaves are the targets, and each node has a limit of slots per group. Sets of
//! targets within all limits form a matroid, so greedy choice never ends up short of a member. Each node gets a share of all
//! slots by weight (`quotas`); old holders stay (`inherit`); vacancies go to those furthest behind their share (`fill`);
//! then slots move from holders above their share to targets below (`rebalance`), and new holders of a group change
//! places (`arrange`).

use crate::ids::TargetId;
use crate::map::{Group, Slot};
use std::collections::BTreeMap;

/// A target that may hold slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementTarget {
    pub id: TargetId,
    /// Its share is in proportion to this: capacity in bytes, as a rule. A target of weight 0 gets nothing.
    pub weight: u64,
    /// Failure domains, widest first: `[rack, host]`. The same host name in two racks is two hosts. A target with fewer
    /// names than others stands beside the domains of the level where its names end.
    pub domains: Vec<String>,
}

/// The `1 << prefix_bits` groups of a pool, each of `slots` slots, over `targets`.
///
/// `previous` is the result of the last time, or empty. If it has fewer groups (a shorter prefix), each of them is the
/// origin of several new ones, and nothing moves for that. A slot that gets another holder names the old one in
/// `Slot::previous`.
pub fn place(targets: &[PlacementTarget], slots: u8, prefix_bits: u8, previous: &[Group], seed: u64) -> Vec<Group> {
    assert!(slots > 0, "a scheme has at least one shard");
    let topology = Topology::new(targets, slots.into());
    let mut plan = Plan::inherit(&topology, origins(slots.into(), prefix_bits, previous), slots.into(), seed);
    plan.fill();
    plan.rebalance();
    plan.arrange();
    plan.into_groups()
}

/// What each slot of each group was before: groups one after the other, `slots` each.
fn origins(slots: usize, prefix_bits: u8, previous: &[Group]) -> Vec<Slot> {
    let groups = 1usize << prefix_bits;
    let origin = |group: usize, slot: usize| previous.get(group * previous.len() / groups)?.slots.get(slot).copied();
    (0..groups * slots).map(|at| origin(at / slots, at % slots).unwrap_or_default()).collect()
}

/// How far a target may be off its share before a slot moves for that alone: a slot and 3 %, so that the rounding of shares,
/// which changes with every change of the targets, moves nothing.
fn tolerance(quota: i64) -> i64 {
    1 + quota / 32
}

/// Rounds of indirect moves. Each carries a surplus one target further; two are enough nearly always.
const THROUGH_ROUNDS_MAX: usize = 8;

/// The tree of failure domains. Nodes are numbered from the root (0) down: a child comes after its parent.
struct Topology {
    nodes: Vec<Node>,
    /// In order of id.
    targets: Vec<Leaf>,
}

/// A failure domain, or a target as the narrowest of them.
#[derive(Default)]
struct Node {
    children: Vec<usize>,
    weight: u128,
    /// How many targets are in it.
    targets: usize,
    /// How many slots of one group it may hold.
    limit: usize,
}

struct Leaf {
    id: TargetId,
    /// The nodes from below the root down to the target's own.
    path: Vec<usize>,
}

impl Topology {
    fn new(targets: &[PlacementTarget], slots: usize) -> Self {
        let by_id: BTreeMap<TargetId, &PlacementTarget> =
            targets.iter().rev().filter(|target| target.weight > 0).map(|target| (target.id, target)).collect();
        let mut topology = Self { nodes: vec![Node::default()], targets: Vec::new() };
        let mut domains: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        for target in by_id.into_values() {
            let mut path = Vec::with_capacity(target.domains.len() + 1);
            let mut node = 0;
            for name in &target.domains {
                node = *domains.entry((node, name)).or_insert_with(|| topology.add_node(node));
                path.push(node);
            }
            path.push(topology.add_node(node));
            for node in path.iter().copied().chain([0]) {
                topology.nodes[node].weight += u128::from(target.weight);
                topology.nodes[node].targets += 1;
            }
            topology.targets.push(Leaf { id: target.id, path });
        }
        topology.limit_domains(slots);
        topology
    }

    fn add_node(&mut self, parent: usize) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node::default());
        self.nodes[parent].children.push(node);
        node
    }

    /// Gives each node the smallest limit that still lets its siblings together hold what their parent must.
    fn limit_domains(&mut self, slots: usize) {
        self.nodes[0].limit = slots.min(self.nodes[0].targets);
        for parent in 0..self.nodes.len() {
            let sizes: Vec<usize> = self.nodes[parent].children.iter().map(|child| self.nodes[*child].targets).collect();
            let room = |limit: usize| sizes.iter().map(|size| limit.min(*size)).sum::<usize>();
            let needed = self.nodes[parent].limit;
            let limit = (0..=needed).find(|limit| room(*limit) >= needed).unwrap_or(needed);
            for child in self.nodes[parent].children.clone() {
                self.nodes[child].limit = limit.min(self.nodes[child].targets);
            }
        }
    }

    /// How many targets each group has.
    fn members(&self) -> usize {
        self.nodes[0].limit
    }

    fn find(&self, id: TargetId) -> Option<usize> {
        self.targets.binary_search_by_key(&id, |leaf| leaf.id).ok()
    }

    /// How many slots each target should hold in all: from the root down, each domain's slots go to its children by weight.
    /// `held` is what the targets hold already; where rounding leaves a choice, it decides.
    fn quotas(&self, groups: usize, held: &[i64]) -> Vec<i64> {
        let mut held_by = vec![0; self.nodes.len()];
        for (leaf, held) in self.targets.iter().zip(held) {
            leaf.path.iter().for_each(|node| held_by[*node] += *held as u64);
        }
        let mut quota = vec![0; self.nodes.len()];
        quota[0] = (groups * self.members()) as u64;
        for (parent, node) in self.nodes.iter().enumerate() {
            let claim = |child: &usize| {
                let node = &self.nodes[*child];
                Claim { weight: node.weight, most: (groups * node.limit) as u64, held: held_by[*child] }
            };
            let claims: Vec<Claim> = node.children.iter().map(claim).collect();
            for (child, share) in node.children.iter().zip(apportion(quota[parent], &claims)) {
                quota[*child] = share;
            }
        }
        self.targets.iter().map(|leaf| quota[*leaf.path.last().expect("a path ends with the target's own node")] as i64).collect()
    }
}

/// What one of several siblings may ask of a total.
struct Claim {
    weight: u128,
    most: u64,
    held: u64,
}

/// Divides `total` in proportion to the weights, but gives no one more than its most. The mosts add up to `total` or more.
fn apportion(total: u64, claims: &[Claim]) -> Vec<u64> {
    let mut shares: Vec<u64> = claims.iter().map(|claim| claim.most).collect();
    let mut open: Vec<usize> = (0..claims.len()).collect();
    // Those whose part by weight is more than their most get their most, and the others share the rest.
    loop {
        let capped: u64 = (0..claims.len()).filter(|at| !open.contains(at)).map(|at| shares[at]).sum();
        let rest = u128::from(total.saturating_sub(capped));
        let weight: u128 = open.iter().map(|at| claims[*at].weight).sum();
        let before = open.len();
        open.retain(|at| rest * claims[*at].weight < u128::from(claims[*at].most) * weight);
        if open.len() < before {
            continue;
        }
        open.iter().for_each(|at| shares[*at] = (rest * claims[*at].weight / weight) as u64);
        // What rounding down left over goes first to those who hold it already, then to the largest remainders.
        let left_over = rest as u64 - open.iter().map(|at| shares[*at]).sum::<u64>();
        open.sort_by_key(|at| {
            let keeps = claims[*at].held > shares[*at];
            (!keeps, std::cmp::Reverse(rest * claims[*at].weight % weight), *at)
        });
        open.iter().take(left_over as usize).for_each(|at| shares[*at] += 1);
        return shares;
    }
}

/// How many slots of one group each node of the tree holds.
struct Load<'a> {
    topology: &'a Topology,
    held: Vec<usize>,
}

impl<'a> Load<'a> {
    fn new(topology: &'a Topology) -> Self {
        Self { topology, held: vec![0; topology.nodes.len()] }
    }

    /// Whether the target may join the group.
    fn has_room_for(&self, target: usize) -> bool {
        self.topology.targets[target].path.iter().all(|node| self.held[*node] < self.topology.nodes[*node].limit)
    }

    fn add(&mut self, target: usize) {
        self.topology.targets[target].path.iter().for_each(|node| self.held[*node] += 1);
    }

    fn remove(&mut self, target: usize) {
        self.topology.targets[target].path.iter().for_each(|node| self.held[*node] -= 1);
    }

    /// Whether `target` may take the place of `holder`, a member of the group.
    fn could_replace(&mut self, holder: usize, target: usize) -> bool {
        self.remove(holder);
        let fits = self.has_room_for(target);
        self.add(holder);
        fits
    }
}

/// Which moves a round of balancing makes, the cheapest first.
#[derive(Clone, Copy)]
enum Moves {
    /// Back to the holder before, which may still have the shards.
    Home,
    /// From a target above its share to one below it.
    Direct,
    /// By way of a third target, where no group lets the one above and the one below meet.
    Through,
}

/// A placement in the making. Targets are numbers into the topology; a slot is its number over all groups.
struct Plan<'a> {
    topology: &'a Topology,
    /// Slots per group.
    slots: usize,
    seed: u64,
    origin: Vec<Slot>,
    holders: Vec<Option<usize>>,
    /// Slots held per target.
    held: Vec<i64>,
    /// Slots held per target and position.
    held_at: Vec<Vec<i64>>,
    /// Slots that each target should hold.
    quota: Vec<i64>,
}

impl<'a> Plan<'a> {
    /// Keeps every holder that is still there and within the limits of its domains.
    fn inherit(topology: &'a Topology, origin: Vec<Slot>, slots: usize, seed: u64) -> Self {
        let targets = topology.targets.len();
        let mut plan = Self {
            topology,
            slots,
            seed,
            holders: vec![None; origin.len()],
            origin,
            held: vec![0; targets],
            held_at: vec![vec![0; slots]; targets],
            quota: Vec::new(),
        };
        for group in 0..plan.groups() {
            let mut load = Load::new(topology);
            // Where a limit has become tighter, the slots to give up are not the same positions in each group, and rather not those that
            // are on their way.
            let turn = plan.draw(group, 0) as usize % slots;
            let mut order: Vec<usize> = (0..slots).map(|at| group * slots + (at + turn) % slots).collect();
            order.sort_by_key(|slot| !plan.is_under_way(*slot));
            for slot in order {
                let holder = plan.origin[slot].holder.and_then(|id| topology.find(id));
                if let Some(target) = holder.filter(|target| load.has_room_for(*target)) {
                    load.add(target);
                    plan.set(slot, target);
                }
            }
        }
        plan.quota = topology.quotas(plan.groups(), &plan.held);
        plan
    }

    fn groups(&self) -> usize {
        self.origin.len() / self.slots
    }

    /// A number that looks random and depends on the seed, the group and the target alone.
    fn draw(&self, group: usize, target: u32) -> u64 {
        // The finaliser of splitmix64.
        let mut word =
            self.seed ^ (group as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(target).wrapping_mul(0xd1b5_4a32_d192_ed03);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn set(&mut self, slot: usize, target: usize) {
        self.clear(slot);
        self.holders[slot] = Some(target);
        self.held[target] += 1;
        self.held_at[target][slot % self.slots] += 1;
    }

    fn clear(&mut self, slot: usize) {
        if let Some(target) = self.holders[slot].take() {
            self.held[target] -= 1;
            self.held_at[target][slot % self.slots] -= 1;
        }
    }

    /// Whether the slot keeps the holder it had: changing it would be a move.
    fn is_kept(&self, slot: usize) -> bool {
        self.holders[slot].is_some_and(|target| self.origin[slot].holder == Some(self.topology.targets[target].id))
    }

    /// Whether the target held the slot before its present holder and so may still have its shards.
    fn is_return(&self, slot: usize, target: usize) -> bool {
        self.origin[slot].previous == Some(self.topology.targets[target].id)
    }

    /// Whether the slot is on its way to a holder that is still there. Only that one has what was written since, and only the one
    /// before has the rest: a third would have to get it from both.
    fn is_under_way(&self, slot: usize) -> bool {
        let Slot { holder, previous } = self.origin[slot];
        previous.is_some() && holder.is_some_and(|id| self.topology.find(id).is_some())
    }

    fn range(&self, group: usize) -> std::ops::Range<usize> {
        group * self.slots..(group + 1) * self.slots
    }

    fn load(&self, group: usize) -> Load<'a> {
        let mut load = Load::new(self.topology);
        self.holders[self.range(group)].iter().flatten().for_each(|target| load.add(*target));
        load
    }

    /// Gives every group all the members it can have.
    fn fill(&mut self) {
        let mut race = Race::new(self);
        for group in 0..self.groups() {
            let vacant: Vec<usize> = self.range(group).filter(|slot| self.holders[*slot].is_none()).collect();
            if vacant.is_empty() {
                continue;
            }
            let mut load = self.load(group);
            self.take_back(&vacant, &mut load, &mut race);
            let members = self.slots - self.range(group).filter(|slot| self.holders[*slot].is_none()).count();
            for _ in members..self.topology.members() {
                let winner = race.winner(self, &load, group).expect("the limits leave room for as many members as a group may have");
                load.add(winner);
                race.advance(winner);
                let free = vacant.iter().copied().filter(|slot| self.holders[*slot].is_none());
                let best = free.min_by_key(|slot| (self.held_at[winner][slot % self.slots], self.draw(*slot, 1)));
                self.set(best.expect("a group has a slot for each member"), winner);
            }
        }
    }

    /// Targets that held a vacant slot before take it back if they are behind their share.
    fn take_back(&mut self, vacant: &[usize], load: &mut Load<'_>, race: &mut Race) {
        for slot in vacant.iter().copied() {
            let before = self.origin[slot].previous.and_then(|id| self.topology.find(id));
            if let Some(target) = before.filter(|target| self.surplus(*target) < 0 && load.has_room_for(*target)) {
                load.add(target);
                race.advance(target);
                self.set(slot, target);
            }
        }
    }

    /// Moves slots from targets above their share to targets below it, as long as that helps.
    fn rebalance(&mut self) {
        let mut order: Vec<usize> = (0..self.groups()).collect();
        order.sort_by_key(|group| self.draw(*group, 2));
        let mut round = |kind: Moves| order.iter().map(|group| self.rebalance_group(*group, kind)).sum::<usize>();
        for kind in [Moves::Home, Moves::Direct] {
            round(kind);
        }
        for _ in 0..THROUGH_ROUNDS_MAX {
            if round(Moves::Through) == 0 {
                break;
            }
        }
    }

    /// Makes the moves of one kind in a group, at most one to each target; returns how many.
    fn rebalance_group(&mut self, group: usize, kind: Moves) -> usize {
        let surplus = |plan: &Self, slot: usize| plan.holders[slot].map_or(0, |holder| plan.surplus(holder));
        let most = self.range(group).map(|slot| surplus(self, slot)).max().unwrap_or(0);
        let least_gain = if let Moves::Through = kind { 2 } else { 1 };
        let mut takers: Vec<usize> = (0..self.held.len()).filter(|target| self.surplus(*target) + least_gain <= most).collect();
        if takers.is_empty() {
            return 0;
        }
        takers.sort_by_key(|target| self.draw(group, self.topology.targets[*target].id.0));
        let mut load = self.load(group);
        let mut moved = 0;
        for taker in takers {
            let fits = |slot: &usize| self.holders[*slot].is_some_and(|holder| load.could_replace(holder, taker));
            let offers = self.range(group).filter(|slot| self.may_move(*slot, taker, kind)).filter(fits);
            if let Some(slot) = offers.min_by_key(|slot| self.move_cost(*slot, taker)) {
                load.remove(self.holders[slot].expect("only held slots are on offer"));
                load.add(taker);
                self.set(slot, taker);
                moved += 1;
            }
        }
        moved
    }

    /// Slots that a target holds above its quota; negative below it.
    fn surplus(&self, target: usize) -> i64 {
        self.held[target] - self.quota[target]
    }

    /// Whether balance asks for this move: one side must be off by more than the tolerance, unless the slot has to move anyway.
    fn may_move(&self, slot: usize, taker: usize, kind: Moves) -> bool {
        let Some(holder) = self.holders[slot] else { return false };
        let (surplus, lack) = (self.surplus(holder), -self.surplus(taker));
        let needed = surplus > tolerance(self.quota[holder]) || lack > tolerance(self.quota[taker]);
        let new = !self.is_kept(slot);
        let direct = surplus > 0 && lack > 0;
        match kind {
            Moves::Home => direct && self.is_return(slot, taker),
            Moves::Direct => direct && (new || needed) && !self.is_under_way(slot),
            // Each such move lowers the sum of the squared surpluses, so this comes to an end.
            Moves::Through => needed && surplus + lack >= 2 && !self.is_under_way(slot),
        }
    }

    /// What is best moved first: slots that have a new holder anyway, positions that the taker has least of, and slots of
    /// holders that have most to give.
    fn move_cost(&self, slot: usize, taker: usize) -> (bool, i64, i64) {
        let surplus = self.holders[slot].map_or(0, |holder| self.surplus(holder));
        (self.is_kept(slot), self.held_at[taker][slot % self.slots], -surplus)
    }

    /// Lets the new holders of a group change places where that evens out how often a target has each position.
    fn arrange(&mut self) {
        for group in 0..self.groups() {
            let free =
                |plan: &Self, slot: &usize| plan.holders[*slot].is_none_or(|target| !plan.is_kept(*slot) && !plan.is_return(*slot, target));
            let free: Vec<usize> = self.range(group).filter(|slot| free(self, slot)).collect();
            for (at, first) in free.iter().enumerate() {
                for second in &free[at + 1..] {
                    if self.swap_gain(*first, *second) > 0 && self.swap_makes_no_move(*first, *second) {
                        self.swap(*first, *second);
                    }
                }
            }
        }
    }

    /// By how much a swap lowers the sum, over targets and positions, of the squared counts; halved.
    fn swap_gain(&self, first: usize, second: usize) -> i64 {
        let (from, to) = (first % self.slots, second % self.slots);
        let gain = |target: Option<usize>, from: usize, to: usize| {
            target.map_or(0, |target| self.held_at[target][from] - self.held_at[target][to] - 1)
        };
        gain(self.holders[first], from, to) + gain(self.holders[second], to, from)
    }

    /// A vacancy must not wander onto a slot that has an origin: its shards would have nowhere to go.
    fn swap_makes_no_move(&self, first: usize, second: usize) -> bool {
        let both = self.holders[first].is_some() && self.holders[second].is_some();
        both || self.origin[first].holder.is_none() && self.origin[second].holder.is_none()
    }

    fn swap(&mut self, first: usize, second: usize) {
        let (one, other) = (self.holders[first], self.holders[second]);
        self.clear(first);
        self.clear(second);
        if let Some(target) = other {
            self.set(first, target);
        }
        if let Some(target) = one {
            self.set(second, target);
        }
    }

    fn into_groups(self) -> Vec<Group> {
        let slot = |at: usize| {
            let holder = self.holders[at].map(|target| self.topology.targets[target].id);
            self.origin[at].handed_to(holder, |id| self.topology.find(*id).is_some())
        };
        (0..self.groups()).map(|group| Group { slots: self.range(group).map(slot).collect() }).collect()
    }
}

/// Who is next to get a vacant slot. Everybody runs towards what it lacks of its quota, at a speed in proportion to that; the one
/// furthest behind wins. A random lead of up to one slot mixes who meets whom, so that the groups of a lost target
/// are rebuilt from, and to, all the others.
struct Race {
    /// Slots each target is to get.
    lacks: Vec<i64>,
    /// Slots it got in this race.
    got: Vec<i64>,
    /// Sum of `lacks`: the length of the race, but for what must be taken from others.
    length: i64,
    /// Slots given away.
    given: i64,
}

impl Race {
    fn new(plan: &Plan<'_>) -> Self {
        let lacks: Vec<i64> = plan.quota.iter().zip(&plan.held).map(|(quota, held)| (quota - held).max(0)).collect();
        Self { got: vec![0; lacks.len()], length: lacks.iter().sum::<i64>().max(1), lacks, given: 0 }
    }

    fn winner(&self, plan: &Plan<'_>, load: &Load<'_>, group: usize) -> Option<usize> {
        let candidates = (0..self.lacks.len()).filter(|target| load.has_room_for(*target));
        candidates.max_by_key(|target| self.standing(plan, group, *target))
    }

    /// Those that lack something come first, by how far they are behind (in units of 1/`length` of a slot). The others are
    /// needed only where the limits of the domains forbid all of the first.
    fn standing(&self, plan: &Plan<'_>, group: usize, target: usize) -> (bool, i64) {
        if self.got[target] >= self.lacks[target] {
            return (false, -plan.surplus(target));
        }
        let lead = plan.draw(group, plan.topology.targets[target].id.0) % self.length as u64;
        (true, self.lacks[target] * self.given - self.got[target] * self.length + lead as i64)
    }

    fn advance(&mut self, target: usize) {
        self.got[target] += 1;
        self.given += 1;
    }
}

#[cfg(test)]
mod tests;
