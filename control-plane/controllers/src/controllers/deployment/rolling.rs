//! RollingUpdate: up to `maxSurge` more pods, at most `maxUnavailable` fewer.

use super::new_set::room;
use super::*;

/// One step of the rollout; `true` when a size changed.
pub(super) fn step(d: &Deployment, sets: &mut Sets) -> bool {
    if grow(d, sets) {
        return true;
    }
    shrink(d, sets)
}

fn grow(d: &Deployment, sets: &mut Sets) -> bool {
    let Some(size) = sets.new.as_ref().map(|n| n.size) else { return false };
    let want = if size > replicas(d) {
        replicas(d)
    } else if size == replicas(d) {
        size
    } else {
        room(d, sets, size)
    };
    if let Some(new) = &mut sets.new {
        new.size = want;
    }
    want != size
}

fn shrink(d: &Deployment, sets: &mut Sets) -> bool {
    let Some(new) = sets.new.as_ref() else { return false };
    if sets.total_old() == 0 {
        return false;
    }
    let min_available = replicas(d) - max_unavailable(d);
    let max_down = sets.total() - min_available - (new.size - new.available());
    if max_down <= 0 {
        return false;
    }
    let before = sets.total_old();
    // Pods that are not available cost nothing to remove: those first.
    let mut down = 0;
    for s in sets.old.iter_mut() {
        if down >= max_down {
            break;
        }
        if s.size == 0 || s.size == s.available() {
            continue;
        }
        let n = (max_down - down).min(s.size - s.available()).max(0);
        s.size -= n;
        down += n;
    }
    let available: i32 = sets.all().map(super::sets::Sized::available).sum();
    let mut left = available - min_available;
    for s in sets.old.iter_mut() {
        if left <= 0 {
            break;
        }
        let n = s.size.min(left);
        s.size -= n;
        left -= n;
    }
    sets.total_old() != before
}
