//! Recreate: every old pod goes before the first new one comes.

use super::*;

/// Shrinks the old sets to nothing and, when none of their pods is left, grows
/// the new one. `true` when the new set has to be created now.
pub(super) fn ready_for_new(cx: &Context<'_>, d: &Deployment, sets: &mut Sets) -> bool {
    if sets.total_old() > 0 {
        sets.old.iter_mut().for_each(|s| s.size = 0);
        return false;
    }
    let running = sets.old.iter().any(|s| {
        let counted = s.rs.status.as_ref().is_some_and(|st| st.replicas > 0);
        counted || cx.world.pods_of(uid(&s.rs.metadata)).any(|p| !pod_terminal(p))
    });
    if running {
        return false;
    }
    match &mut sets.new {
        None => true,
        Some(new) => {
            new.size = replicas(d);
            false
        }
    }
}
