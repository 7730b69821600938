use super::{PlacementTarget, place};
use crate::ids::TargetId;
use crate::map::{Group, Slot};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_assert, prop_assert_eq, proptest};
use std::collections::{BTreeMap, BTreeSet};

fn target(id: u32, weight: u64, domains: &[String]) -> PlacementTarget {
    PlacementTarget { id: TargetId(id), weight, domains: domains.to_vec() }
}

/// `count` targets of equal weight, each on a host of its own.
fn flat(count: u32) -> Vec<PlacementTarget> {
    (0..count).map(|id| target(id, 1000, &[format!("h{id}")])).collect()
}

/// `racks` x `hosts` x `disks` targets of equal weight.
fn cube(racks: u32, hosts: u32, disks: u32) -> Vec<PlacementTarget> {
    let each = (0..racks * hosts * disks).map(|id| (id, id / disks));
    each.map(|(id, host)| target(id, 1000, &[format!("r{}", host / hosts), format!("h{host}")])).collect()
}

fn without(targets: &[PlacementTarget], gone: u32) -> Vec<PlacementTarget> {
    targets.iter().filter(|target| target.id != TargetId(gone)).cloned().collect()
}

fn members(group: &Group) -> Vec<TargetId> {
    group.slots.iter().filter_map(|slot| slot.holder).collect()
}

fn held(groups: &[Group]) -> BTreeMap<TargetId, u64> {
    let mut held = BTreeMap::new();
    groups.iter().flat_map(members).for_each(|id| *held.entry(id).or_default() += 1);
    held
}

/// Slots whose holder changed from one target to another.
fn moves(before: &[Group], after: &[Group]) -> usize {
    let slots = |groups: &[Group]| groups.iter().flat_map(|group| group.slots.iter().map(|slot| slot.holder)).collect::<Vec<_>>();
    let pairs = slots(before).into_iter().zip(slots(after));
    pairs.filter(|(before, after)| before.is_some() && before != after).count()
}

/// The groups once all slots have arrived.
fn settled(groups: &[Group]) -> Vec<Group> {
    let settle = |group: &Group| Group { slots: group.slots.iter().map(|slot| Slot { previous: None, ..*slot }).collect() };
    groups.iter().map(settle).collect()
}

/// The slots each target should hold without failure domains: by weight, but at most one per group.
fn fair_shares(targets: &[PlacementTarget], slots: u64, groups: u64) -> BTreeMap<TargetId, f64> {
    let mut shares = BTreeMap::new();
    let mut order: Vec<&PlacementTarget> = targets.iter().collect();
    order.sort_by_key(|target| std::cmp::Reverse(target.weight));
    let mut rest = (slots.min(targets.len() as u64) * groups) as f64;
    let mut weight: f64 = order.iter().map(|target| target.weight as f64).sum();
    for target in order {
        let share = (rest * target.weight as f64 / weight).min(groups as f64);
        shares.insert(target.id, share);
        rest -= share;
        weight -= target.weight as f64;
    }
    shares
}

/// The least that the fullest domain of a group must hold if `slots` are spread over domains of these sizes.
fn least_crowding(sizes: &[usize], slots: usize) -> usize {
    let needed = slots.min(sizes.iter().sum());
    (0..).find(|most| sizes.iter().map(|size| size.min(most)).sum::<usize>() >= needed).unwrap()
}

/// What must hold of every placement whatsoever.
fn check_groups(targets: &[PlacementTarget], slots: u8, prefix_bits: u8, groups: &[Group]) {
    let by_id: BTreeMap<TargetId, &PlacementTarget> = targets.iter().map(|target| (target.id, target)).collect();
    let mut sizes: BTreeMap<&[String], usize> = BTreeMap::new();
    let mut inside: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for target in targets {
        for depth in 1..=target.domains.len() {
            *sizes.entry(&target.domains[..depth]).or_default() += 1;
            inside.entry(&target.domains[..depth - 1]).or_default().insert(&target.domains[..depth]);
        }
    }
    assert_eq!(groups.len(), 1 << prefix_bits);
    for group in groups {
        let members = members(group);
        assert_eq!(group.slots.len(), usize::from(slots));
        assert_eq!(members.len(), usize::from(slots).min(targets.len()), "a slot is vacant without need");
        assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), members.len(), "a target twice in a group");
        for (parent, children) in &inside {
            let count = |domain: &[String]| members.iter().filter(|id| by_id[id].domains.starts_with(domain)).count();
            let sizes: Vec<usize> = children.iter().map(|child| sizes[child]).collect();
            // The parent itself may hold as many as its own siblings force on it; here: what it does hold.
            let most =
                least_crowding(&sizes, count(parent).max(if parent.is_empty() { 0 } else { crowding_of(parent, &inside, &by_id, slots) }));
            assert!(children.iter().all(|child| count(child) <= most), "more than {most} slots of {members:?} in one of {children:?}");
        }
    }
}

/// The limit of a domain, from the root down.
fn crowding_of(
    domain: &[String],
    inside: &BTreeMap<&[String], BTreeSet<&[String]>>,
    by_id: &BTreeMap<TargetId, &PlacementTarget>,
    slots: u8,
) -> usize {
    let size = |domain: &[String]| by_id.values().filter(|target| target.domains.starts_with(domain)).count();
    let Some((_, parent)) = domain.split_last() else {
        return size(domain).min(slots.into());
    };
    let sizes: Vec<usize> = inside[parent].iter().map(|child| size(child)).collect();
    least_crowding(&sizes, crowding_of(parent, inside, by_id, slots)).min(size(domain))
}

/// No target is further than 10 % and two slots from its fair share.
fn check_balance(targets: &[PlacementTarget], slots: u8, groups: &[Group]) {
    let held = held(groups);
    for (id, share) in fair_shares(targets, slots.into(), groups.len() as u64) {
        let found = held.get(&id).copied().unwrap_or(0) as f64;
        assert!((found - share).abs() <= share * 0.1 + 2.0, "{id} holds {found} slots instead of {share:.1}");
    }
}

#[test]
fn equal_targets_hold_equal_parts_in_every_position() {
    for (count, slots, bits) in [(6, 6, 8), (7, 6, 8), (8, 6, 9), (20, 6, 10), (100, 6, 12), (200, 12, 12), (3, 3, 5), (30, 20, 9)] {
        let groups = place(&flat(count), slots, bits, &[], 7);
        check_groups(&flat(count), slots, bits, &groups);
        check_balance(&flat(count), slots, &groups);
        let share = f64::from(1u32 << bits) / f64::from(count);
        for position in 0..usize::from(slots) {
            let mut at: BTreeMap<TargetId, f64> = flat(count).iter().map(|target| (target.id, 0.0)).collect();
            groups.iter().for_each(|group| *at.get_mut(&group.slots[position].holder.unwrap()).unwrap() += 1.0);
            let worst = at.values().map(|found| (found - share).abs()).fold(0.0, f64::max);
            assert!(worst <= share * 0.1 + 2.0, "{count} targets, position {position}: off by {worst} of {share}");
        }
    }
}

#[test]
fn removing_a_target_moves_only_what_it_held() {
    for (count, slots, bits) in [(7, 6, 8), (8, 6, 9), (20, 6, 10), (100, 6, 12), (60, 12, 11)] {
        let before = place(&flat(count), slots, bits, &[], 3);
        let rest = without(&flat(count), 4);
        let after = place(&rest, slots, bits, &before, 3);
        check_groups(&rest, slots, bits, &after);
        check_balance(&rest, slots, &after);
        let least = held(&before)[&TargetId(4)] as usize;
        let moved = moves(&before, &after);
        assert!(moved <= least + least / 20, "{count} targets: {moved} slots moved where {least} had to");
    }
}

#[test]
fn adding_a_target_moves_only_what_it_gets() {
    for (count, slots, bits) in [(6, 6, 8), (7, 6, 8), (20, 6, 10), (99, 6, 12), (60, 12, 11)] {
        let before = place(&flat(count), slots, bits, &[], 3);
        let after = place(&flat(count + 1), slots, bits, &before, 3);
        check_groups(&flat(count + 1), slots, bits, &after);
        check_balance(&flat(count + 1), slots, &after);
        let gets = held(&after)[&TargetId(count)] as usize;
        let moved = moves(&before, &after);
        assert!(moved <= gets + gets / 20, "{count} targets: {moved} slots moved for {gets}");
    }
}

#[test]
fn racks_and_hosts_are_kept_apart() {
    for (racks, hosts, disks) in [(6, 2, 2), (3, 4, 2), (2, 3, 4), (1, 6, 3), (1, 3, 2), (4, 1, 6), (8, 3, 1)] {
        let targets = cube(racks, hosts, disks);
        let groups = place(&targets, 6, 8, &[], 1);
        check_groups(&targets, 6, 8, &groups);
        check_balance(&targets, 6, &groups);
    }
    let groups = place(&cube(3, 4, 2), 6, 8, &[], 1);
    let racks = |group: &Group| members(group).into_iter().map(|id| id.0 / 8).collect::<Vec<_>>();
    assert!(groups.iter().all(|group| (0..3).all(|rack| racks(group).iter().filter(|at| **at == rack).count() == 2)));
}

#[test]
fn a_lost_target_is_replaced_by_many() {
    let before = place(&flat(40), 6, 10, &[], 5);
    let after = place(&without(&flat(40), 0), 6, 10, &before, 5);
    let gained: BTreeSet<TargetId> = before
        .iter()
        .zip(&after)
        .flat_map(|(before, after)| before.slots.iter().zip(&after.slots))
        .filter(|(before, after)| before.holder != after.holder)
        .filter_map(|(_, after)| after.holder)
        .collect();
    assert!(gained.len() >= 36, "only {} of 39 targets take part in the repair", gained.len());
}

#[test]
fn a_target_that_comes_back_gets_its_own_slots() {
    let targets = flat(20);
    let before = place(&targets, 6, 9, &[], 5);
    let during = place(&without(&targets, 3), 6, 9, &before, 5);
    let lost: Vec<&Slot> = during.iter().flat_map(|group| &group.slots).filter(|slot| slot.previous == Some(TargetId(3))).collect();
    assert_eq!(lost.len() as u64, held(&before)[&TargetId(3)]);
    let after = place(&targets, 6, 9, &during, 5);
    let own = before.iter().zip(&after).flat_map(|(before, after)| before.slots.iter().zip(&after.slots));
    let own = own.filter(|(before, after)| before.holder == Some(TargetId(3)) && after.holder == before.holder).count();
    assert!(own * 100 >= lost.len() * 95, "only {own} of {} slots came home", lost.len());
}

#[test]
fn too_few_targets_leave_slots_vacant_in_turn() {
    let groups = place(&flat(4), 6, 8, &[], 2);
    check_groups(&flat(4), 6, 8, &groups);
    for position in 0..6 {
        let vacant = groups.iter().filter(|group| group.slots[position].holder.is_none()).count();
        assert!((60..=110).contains(&vacant), "position {position} is vacant in {vacant} of 256 groups");
    }
    let grown = place(&flat(6), 6, 8, &groups, 2);
    assert_eq!(moves(&groups, &grown), 0, "the new targets have vacant slots to go to");
    let none = place(&[], 6, 4, &groups, 2);
    assert!(none.iter().all(|group| group.slots.len() == 6 && members(group).is_empty()));
    let weightless = place(&[target(1, 0, &[])], 3, 4, &[], 2);
    assert!(weightless.iter().all(|group| members(group).is_empty()));
}

#[test]
fn splitting_groups_moves_nothing() {
    let before = place(&cube(3, 4, 2), 6, 7, &[], 4);
    let after = place(&cube(3, 4, 2), 6, 8, &before, 4);
    assert!(after.iter().enumerate().all(|(at, group)| *group == before[at / 2]));
}

#[test]
fn a_slot_that_moves_names_its_holder_before() {
    let before = place(&flat(10), 4, 8, &[], 6);
    assert!(before.iter().flat_map(|group| &group.slots).all(|slot| slot.previous.is_none()));
    let after = place(&flat(12), 4, 8, &before, 6);
    for (old, new) in before.iter().zip(&after).flat_map(|(old, new)| old.slots.iter().zip(&new.slots)) {
        assert_eq!(new.previous, (old.holder != new.holder).then_some(old.holder).flatten());
    }
}

#[test]
fn slots_on_their_way_are_left_alone_until_they_are_there() {
    for (count, slots, bits) in [(6, 6, 8), (3, 3, 8), (12, 4, 9)] {
        let before = place(&flat(count), slots, bits, &[], 6);
        let first = place(&flat(count + 1), slots, bits, &before, 6);
        let second = place(&flat(count + 2), slots, bits, &first, 6);
        check_groups(&flat(count + 2), slots, bits, &second);
        let pairs = || first.iter().zip(&second).flat_map(|(old, new)| old.slots.iter().zip(&new.slots));
        for (old, new) in pairs().filter(|(old, _)| old.previous.is_some()) {
            assert!(new == old || new.holder == old.previous, "{old:?} became {new:?}");
        }
        let third = place(&flat(count + 2), slots, bits, &settled(&second), 6);
        check_balance(&flat(count + 2), slots, &third);
    }
}

/// Racks, hosts and disks of uneven numbers, with weights of one to ten.
fn any_targets(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<PlacementTarget>> {
    vec((0..5u32, 0..6u32, 1..=10u64, 0..3usize), count).prop_map(|rows| {
        let build = |(id, (rack, host, weight, depth)): (usize, (u32, u32, u64, usize))| {
            target(id as u32, weight * 1_000_000_007, &[format!("r{rack}"), format!("h{host}")][..depth])
        };
        rows.into_iter().enumerate().map(build).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_of_targets_keeps_the_promises(
        targets in any_targets(1..40), slots in 1..=12u8, bits in 3..=8u8,
        lives in vec((vec(proptest::bool::weighted(0.8), 40), proptest::bool::ANY), 1..6), seed: u64,
    ) {
        let mut groups: Vec<Group> = Vec::new();
        for (life, all_arrive) in lives {
            let there: Vec<PlacementTarget> = targets.iter().zip(&life).filter(|(_, lives)| **lives).map(|(target, _)| target.clone()).collect();
            let next = place(&there, slots, bits, &groups, seed);
            check_groups(&there, slots, bits, &next);
            // What had to wait for slots on their way moves once they are there, nearly all of it at the first look, and then all is at rest.
            let all = next.len() * usize::from(slots);
            let mut state = settled(&next);
            for look in 0.. {
                let later = settled(&place(&there, slots, bits, &state, seed));
                let moved = moves(&state, &later);
                if moved == 0 {
                    break;
                }
                prop_assert!(look == 0 || (look < 6 && moved <= 2 + all / 100), "look {look} moves {moved} of {all} slots");
                state = later;
            }
            check_groups(&there, slots, bits, &state);
            groups = if all_arrive { settled(&next) } else { next };
        }
    }

    #[test]
    fn the_order_of_targets_makes_no_difference(
        (targets, shuffled) in any_targets(1..30).prop_flat_map(|targets| (Just(targets.clone()), Just(targets).prop_shuffle())), seed: u64,
    ) {
        prop_assert_eq!(place(&targets, 6, 6, &[], seed), place(&shuffled, 6, 6, &[], seed));
    }

    #[test]
    fn any_weights_are_respected_and_little_moves(weights in vec(1..=10u64, 2..60), slots in 1..=8u8, gone: u32, seed: u64) {
        let targets: Vec<PlacementTarget> = (0..).zip(&weights).map(|(id, weight)| target(id, weight * 1_000_003, &[])).collect();
        let before = place(&targets, slots, 9, &[], seed);
        check_balance(&targets, slots, &before);
        let gone = gone % targets.len() as u32;
        let rest = without(&targets, gone);
        let during = place(&rest, slots, 9, &before, seed);
        check_balance(&rest, slots, &during);
        check_balance(&targets, slots, &place(&targets, slots, 9, &during, seed));
    }
}
