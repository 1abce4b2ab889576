//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not
//! ready or cannot be reached, unless it says otherwise.

use serde_json::{Value, json};
use triarch_api::status::Status;
use triarch_kinds::value::{child, get, list, set, str_of};
use triarch_registry::{Attributes, Operation};

use crate::{Plugin, is};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        if !is(attrs, "", "pods") || !matches!(attrs.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let Some(pod) = attrs.object_mut() else { return Ok(()) };
        let mut tolerations = list(get(pod, "spec"), "tolerations").to_vec();
        let had = tolerations.len();
        for taint in TAINTS {
            let tolerates =
                |t: &Value| ["", taint].contains(&str_of(t, "key")) && ["", "NoExecute"].contains(&str_of(t, "effect"));
            if !tolerations[..had].iter().any(tolerates) {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
                }));
            }
        }
        if tolerations.len() != had {
            set(child(pod, "spec"), "tolerations", tolerations);
        }
        Ok(())
    }
}
