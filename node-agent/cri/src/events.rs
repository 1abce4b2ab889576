//! containerd's event stream: which container changed, as soon as it did.
//!
//! Only a wake-up: what changed is read again from the runtime, so a lost or
//! repeated event costs latency and never truth. The caller relists besides.

use prost::Message;
use tonic::metadata::MetadataValue;

use crate::containerd::events_client::EventsClient;
use crate::containerd::{SubscribeRequest, TaskEvent, TaskExit};
use crate::{Cri, CriError};

/// The containerd namespace that CRI's containers live in.
const NAMESPACE: &str = "k8s.io";

/// A container or sandbox with this id started, ended or went away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerChange {
    pub id: String,
}

/// Changes until the runtime goes away.
#[derive(Debug)]
pub struct EventStream(tonic::Streaming<crate::containerd::Envelope>);

impl Cri {
    /// Subscribes to container changes; [`CriError::Unimplemented`] where the
    /// runtime is not containerd.
    pub async fn events(&self) -> Result<EventStream, CriError> {
        let socket = self.socket().to_string_lossy().into_owned();
        let mut client = EventsClient::new(self.channel());
        let mut request =
            tonic::Request::new(SubscribeRequest { filters: vec![format!("namespace=={NAMESPACE},topic~=/tasks/.*")] });
        request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        match client.subscribe(request).await {
            Ok(stream) => Ok(EventStream(stream.into_inner())),
            Err(status) => Err(CriError::from_status(&socket, "Events/Subscribe", status)),
        }
    }
}

impl EventStream {
    /// The next change; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<ContainerChange> {
        loop {
            let envelope = self.0.message().await.ok().flatten()?;
            if !matters(&envelope.topic) {
                continue;
            }
            let Some(event) = envelope.event else { continue };
            if envelope.topic == "/tasks/exit" && is_exec(&event.value) {
                continue;
            }
            if let Ok(task) = TaskEvent::decode(event.value.as_slice())
                && !task.container_id.is_empty()
            {
                return Some(ContainerChange { id: task.container_id });
            }
        }
    }
}

fn is_exec(exit: &[u8]) -> bool {
    TaskExit::decode(exit).is_ok_and(|e| !e.id.is_empty() && e.id != e.container_id)
}

/// Exec'd processes come and go with every probe and say nothing about the
/// container itself.
fn matters(topic: &str) -> bool {
    matches!(topic, "/tasks/create" | "/tasks/start" | "/tasks/exit" | "/tasks/delete" | "/tasks/oom")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_probes_process_is_not_the_containers() {
        let exit = |id: &str| TaskExit { container_id: "c".into(), id: id.into() }.encode_to_vec();
        assert!(is_exec(&exit("probe-1")) && !is_exec(&exit("c")));
    }

    #[test]
    fn only_changes_of_tasks_wake_the_agent() {
        assert!(matters("/tasks/exit") && matters("/tasks/oom"));
        assert!(!matters("/tasks/exec-added") && !matters("/tasks/exec-started") && !matters("/images/create"));
    }
}
