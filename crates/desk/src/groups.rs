//! Groups as a caller sees them: names and units of the kernel's memory cgroups.

use std::collections::BTreeMap;

use vswap_control::protocol::{Group, LIMITS, RECLAIM, Share, TIER_LIMIT, tier_of_limit};
use vswap_core::{ByteCount, Event, GroupId, Resource};
use vswap_engine::{Figure, TierId, TierShare};
use vswap_pager::{LEAST_LIMIT, NamedGroup, Pager};

pub(crate) fn groups(pager: &Pager, processes: &[(i32, GroupId)]) -> Vec<Group> {
    let tree = pager.engine().group_tree();
    let mut within: BTreeMap<GroupId, Vec<i32>> = BTreeMap::new();
    for (pid, of) in processes {
        within.entry(tree.resolve(*of)).or_default().push(*pid);
    }
    let mut of = |group: GroupId| within.remove(&group).unwrap_or_default();
    pager
        .groups()
        .into_iter()
        .map(|named| Group { processes: sorted(of(named.group.id)), ..group(named) })
        .collect()
}

fn sorted(mut pids: Vec<i32>) -> Vec<i32> {
    pids.sort_unstable();
    pids
}

fn group(named: NamedGroup) -> Group {
    let NamedGroup { path, group, .. } = named;
    let in_bytes = |figure: Figure| {
        let bytes = |pages: u64| pages.saturating_mul(4096);
        (bytes(figure.usage), figure.limit.map(bytes), figure.effective.map(bytes))
    };
    let (memory, memory_max, memory_effective) = in_bytes(group.resident);
    let (swap, swap_max, swap_effective) = in_bytes(group.swap);
    let count = |event: Event| group.events[event as usize];
    let table =
        |rows: &[(&str, u64)]| rows.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Group {
        path,
        memory,
        memory_peak: group.peak.saturating_mul(4096),
        memory_max,
        memory_effective,
        zswap: group.pool.usage,
        zswap_max: group.pool.limit,
        zswap_effective: group.pool.effective,
        swap,
        swap_max,
        swap_effective,
        tiers: group.tiers.iter().map(share).collect(),
        stat: table(&[
            ("anon", memory),
            ("zswap", group.pool.usage),
            ("workingset_refault_anon", count(Event::Refault)),
            ("workingset_activate_anon", count(Event::Activate)),
            ("pswpin", count(Event::Pswpin)),
            // As in the kernel, what leaves the compressed pages is a page swapped out as well.
            ("pswpout", count(Event::Zswpwb)),
            ("zswpin", count(Event::Zswpin)),
            ("zswpout", count(Event::Zswpout)),
            ("zswpwb", count(Event::Zswpwb)),
            ("swpin_zero", count(Event::SwpinZero)),
            ("swpout_zero", count(Event::SwpoutZero)),
        ]),
        events: table(&[("max", count(Event::Max)), ("oom", count(Event::Oom))]),
        swap_events: table(&[("max", count(Event::SwapMax))]),
        processes: Vec::new(),
    }
}

fn share(share: &TierShare) -> Share {
    Share {
        tier: share.tier.get(),
        current: share.usage.get(),
        max: share.limit.map(ByteCount::get),
        effective: share.effective.map(ByteCount::get),
    }
}

/// Sets limits by their names, all or none.
pub(crate) fn set(pager: &Pager, path: &str, limits: &BTreeMap<String, Option<u64>>) -> Result<(), String> {
    let group = pager.group(path).map_err(|error| error.to_string())?;
    let mut changes = Vec::new();
    for (name, limit) in limits {
        let pages = limit.map(|bytes| bytes / 4096);
        changes.push(match name.as_str() {
            "memory.max" if group == GroupId::ROOT => {
                let enough = limit.map(ByteCount::new).filter(|limit| *limit >= LEAST_LIMIT);
                let Some(limit) = enough else {
                    return Err(format!(
                        "memory.max of / is the limit of all: it must be one, of {LEAST_LIMIT} at least"
                    ));
                };
                Change::OfAll(limit)
            }
            "memory.max" => Change::Of(Resource::Resident, pages),
            "memory.zswap.max" => Change::Of(Resource::Pool, *limit),
            "memory.swap.max" => Change::Of(Resource::Swap, pages),
            RECLAIM if group == GroupId::ROOT => Change::Reclaim(limit.unwrap_or(0)),
            RECLAIM => return Err(format!("{RECLAIM} is of all: it can only be set for /")),
            name => {
                let unknown = || format!("there is no limit {name:?}: {}, {TIER_LIMIT}", LIMITS.join(", "));
                let tier = tier_of_limit(name).map(TierId::new).ok_or_else(unknown)?;
                if !pager.engine().tiers().iter().any(|there| there.id == tier) {
                    return Err(format!("{name}: there is no {tier}; vswap tiers shows what there is"));
                }
                Change::OfTier(tier, limit.map(ByteCount::new))
            }
        });
    }
    // Of these one may still be refused, and then none is to be set.
    changes.sort_by_key(|change| !matches!(change, Change::OfTier(..)));
    for change in changes {
        match change {
            Change::OfAll(limit) => pager.set_limit(limit),
            Change::Reclaim(target) => pager.set_reclaim_target(target),
            Change::Of(resource, limit) => {
                pager.limit_group(path, resource, limit).map_err(|error| error.to_string())?;
            }
            Change::OfTier(tier, limit) => {
                pager.limit_group_on_tier(path, tier, limit).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(())
}

enum Change {
    OfAll(ByteCount),
    Reclaim(u64),
    Of(Resource, Option<u64>),
    OfTier(TierId, Option<ByteCount>),
}
