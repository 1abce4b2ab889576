//! `pods/eviction`: a graceful delete that disruption budgets may refuse.

use serde_json::Value;
use triarch_api::status::Status;
use triarch_registry::{ActionContext, ActionOutcome};

use crate::value::{get, str_at};

pub fn evict(ctx: &ActionContext<'_>, body: Value) -> Result<ActionOutcome, Status> {
    let name = str_at(&body, &["metadata", "name"]);
    if !name.is_empty() && name != ctx.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let answer = Status::success(("", ""), "", "").to_value();
    Ok(ActionOutcome::Delete { options: get(&body, "deleteOptions").clone(), answer, code: 201 })
}
