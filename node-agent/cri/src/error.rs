//! What a failed runtime call means to the agent.

/// A container runtime call that did not succeed. `message` is the runtime's
/// own text, which users see in statuses and events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    #[error("{message}")]
    NotFound { message: String },
    /// Nobody answers on the socket.
    #[error(
        "no container runtime answers on {socket} ({message}); start containerd (systemctl start containerd), \
         or name its socket with --cri"
    )]
    Unavailable { socket: String, message: String },
    #[error("the container runtime did not answer {call} within {seconds} s")]
    DeadlineExceeded { call: &'static str, seconds: u64 },
    #[error("the container runtime does not implement {call}")]
    Unimplemented { call: &'static str },
    #[error("{message}")]
    Failed { code: i32, message: String },
}

impl CriError {
    pub(crate) fn from_status(socket: &str, call: &'static str, status: tonic::Status) -> CriError {
        let message = status.message().to_owned();
        match status.code() {
            tonic::Code::NotFound => CriError::NotFound { message },
            tonic::Code::Unavailable => CriError::Unavailable { socket: socket.to_owned(), message },
            tonic::Code::Unimplemented => CriError::Unimplemented { call },
            code => {
                // The runtime prefixes nothing; the agent shows what upstream's
                // clients show: the gRPC form of the error.
                let name = format!("{code:?}");
                CriError::Failed { code: code as i32, message: format!("rpc error: code = {name} desc = {message}") }
            }
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, CriError::NotFound { .. })
    }

    pub fn is_unavailable(&self) -> bool {
        matches!(self, CriError::Unavailable { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_socket_says_what_to_do() {
        let e = CriError::from_status("/run/x.sock", "Version", tonic::Status::unavailable("connection refused"));
        assert!(e.is_unavailable());
        let text = e.to_string();
        assert!(text.contains("/run/x.sock") && text.contains("systemctl start containerd"), "{text}");
    }

    #[test]
    fn other_failures_keep_the_runtimes_text_in_its_grpc_form() {
        let e = CriError::from_status("s", "PullImage", tonic::Status::unknown("no such host"));
        assert_eq!(e.to_string(), "rpc error: code = Unknown desc = no such host");
    }
}
