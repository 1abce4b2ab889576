//! Keys, certificates and tokens: who may say who they are.
//!
//! Everything is a function of its arguments (the time is one of them); the
//! caller keeps what is made. Key material is [`triarch_env::Secret`] or lives
//! inside types without `Debug` of their contents.
//!
//! * [`ca`]: certificate authorities and what they issue.
//! * [`check`]: whether what lay in files is still what was issued.
//! * [`identity`]: the user and groups that a client certificate names.
//! * [`jwt`]: service-account tokens (ES256).
//! * [`seal`]: key material at rest, AES-256-GCM under the replica's key file.
//! * [`tls`]: rustls configurations for every listener and client we have.
//! * [`token`]: join tokens of class node and server.

pub mod ca;
pub mod check;
pub mod identity;
pub mod jwt;
pub mod seal;
pub mod tls;
pub mod token;

/// Makes ring the process's TLS and JWT provider. Call it first thing in every
/// binary and test; calling it again does nothing.
pub fn install_crypto() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    jwt::install_provider();
}

/// What can go wrong with keys, certificates and tokens.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("not a valid certificate: {0}")]
    Parse(String),
    #[error("not a valid certificate signing request: {0}")]
    Csr(String),
    #[error("TLS configuration: {0}")]
    Tls(String),
    #[error("the sealed data was made with another key, or was changed")]
    Unseal,
    #[error("x509: {0}")]
    Untrusted(String),
    #[error("token: {0}")]
    Token(String),
}
