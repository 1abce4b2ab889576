//! `pods/eviction`: a graceful delete that disruption budgets may refuse.

use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_registry::{ActionContext, ActionOutcome};

use crate::value::{child, copy, each_mut, get, int_of, list, set, str_at, str_of};

/// Says on the pod why it is going, then deletes it.
pub fn evict(ctx: &ActionContext<'_>, body: Value) -> Result<ActionOutcome, Status> {
    let name = str_at(&body, &["metadata", "name"]);
    if !name.is_empty() && name != ctx.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut object = ctx.object.clone();
    disrupted(&mut object, &ctx.rules.now.rfc3339());
    let options = get(&body, "deleteOptions").clone();
    Ok(ActionOutcome::Delete { object, options, answer: Status::created(), code: 201 })
}

/// The condition DisruptionTarget; its time is kept when it is there already.
fn disrupted(pod: &mut Value, now: &str) {
    let mut condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": now,
    });
    let generation = int_of(get(pod, "metadata"), "generation");
    if generation != 0 {
        set(&mut condition, "observedGeneration", generation);
    }
    let status = child(pod, "status");
    if let Some(had) = each_mut(status, "conditions").find(|c| str_of(c, "type") == "DisruptionTarget") {
        if str_of(had, "status") == "True" {
            copy(had, &mut condition, "lastTransitionTime");
        }
        *had = condition;
        return;
    }
    let mut conditions = list(status, "conditions").to_vec();
    conditions.push(condition);
    set(status, "conditions", conditions);
}
