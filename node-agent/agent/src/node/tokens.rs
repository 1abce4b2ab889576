//! Service-account tokens for pods, asked of the control plane by the session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use triarch_env::{Env, Secret};
use triarch_rpc::node::{TokenRequest, TokenResponse};

use crate::session::outbox::Outbox;

const LIMIT: Duration = Duration::from_secs(10);

/// A token and when it ends (Unix seconds).
#[derive(Clone, Debug)]
pub struct Token {
    pub token: Secret,
    pub expires_at: i64,
}

pub struct Tokens {
    env: Env,
    outbox: Arc<Outbox>,
    waiting: Mutex<(u64, BTreeMap<u64, oneshot::Sender<TokenResponse>>)>,
}

impl Tokens {
    pub fn new(env: Env, outbox: Arc<Outbox>) -> Tokens {
        Tokens { env, outbox, waiting: Mutex::default() }
    }

    /// Asks for a token (the request's id is set here); fails when no session
    /// answers in time.
    pub async fn request(&self, mut request: TokenRequest) -> Result<Token, String> {
        let (tx, rx) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting.lock();
            waiting.0 += 1;
            let id = waiting.0;
            waiting.1.retain(|_, tx| !tx.is_closed());
            waiting.1.insert(id, tx);
            id
        };
        request.id = id;
        if !self.outbox.token(request) {
            return Err("too many token requests are waiting for the control plane".into());
        }
        let answer = match self.env.timeout(LIMIT, rx).await {
            Ok(Ok(answer)) => answer,
            _ => return Err("no control-plane replica answered the token request".into()),
        };
        match answer.error.is_empty() {
            true => Ok(Token { token: Secret::new(answer.token), expires_at: answer.expiration_unix_seconds }),
            false => Err(answer.error),
        }
    }

    pub fn answered(&self, response: TokenResponse) {
        if let Some(tx) = self.waiting.lock().1.remove(&response.id) {
            let _ = tx.send(response);
        }
    }
}
