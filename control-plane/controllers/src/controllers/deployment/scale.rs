//! Scaling without a rollout step: the one active set, or all of them in
//! proportion to their sizes so that a rollout keeps its balance.

use super::*;

pub(super) fn proportional(d: &Deployment, sets: &mut Sets) {
    let want = replicas(d);
    let active = sets.all().filter(|s| s.size > 0).count();
    if active <= 1 {
        let one = match active {
            1 => sets.old.iter_mut().chain(&mut sets.new).find(|s| s.size > 0),
            _ if sets.new.is_some() => sets.new.as_mut(),
            _ => sets.old.last_mut(),
        };
        if let Some(s) = one {
            s.size = want;
        }
        return;
    }
    if sets.new.as_ref().is_some_and(|n| n.is_full(d)) {
        sets.old.iter_mut().for_each(|s| s.size = 0);
        return;
    }
    if !is_rolling(d) {
        return;
    }
    let allowed = if want > 0 { want + max_surge(d) } else { 0 };
    let add = allowed - sets.total();
    let status_replicas = d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let mut active: Vec<_> = sets.old.iter_mut().chain(&mut sets.new).filter(|s| s.size > 0).collect();
    // The largest first; of equal ones the newer when growing and the older when shrinking.
    active.sort_by_key(|s| {
        let age = created(&s.rs.metadata);
        (-s.size, if add > 0 { -age } else { age })
    });
    let mut added = 0;
    for s in &mut active {
        if add == 0 || add == added {
            break;
        }
        let share = fraction(d, s, status_replicas);
        let share = if add > 0 { share.min(add - added) } else { share.max(add - added) };
        s.size += share;
        added += share;
    }
    // What rounding left over goes to the largest.
    if let Some(first) = active.first_mut() {
        first.size = (first.size + add - added).max(0);
    }
}

/// By how much a set changes when the whole goes from its annotated size to the present one.
fn fraction(d: &Deployment, s: &super::sets::Sized, status_replicas: i32) -> i32 {
    if replicas(d) == 0 {
        return -s.size;
    }
    let before: i32 = annotation(&s.rs.metadata, MAX).and_then(|m| m.parse().ok()).unwrap_or(status_replicas);
    if before == 0 {
        return 0;
    }
    let max = f64::from(replicas(d) + max_surge(d));
    (f64::from(s.size) * max / f64::from(before)).round() as i32 - s.size
}
