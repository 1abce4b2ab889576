//! Several admission chains as one, in order.

use std::sync::Arc;

use async_trait::async_trait;
use triarch_api::status::Status;
use triarch_registry::{Admission, Attributes};

/// See the module's text.
pub struct Plugins(Vec<Arc<dyn Admission>>);

impl Plugins {
    pub fn new(chains: Vec<Arc<dyn Admission>>) -> Plugins {
        Plugins(chains)
    }
}

#[async_trait]
impl Admission for Plugins {
    async fn admit(&self, attrs: &mut Attributes<'_>) -> Result<(), Status> {
        for chain in &self.0 {
            chain.admit(attrs).await?;
        }
        Ok(())
    }

    async fn validate(&self, attrs: &Attributes<'_>) -> Result<(), Status> {
        for chain in &self.0 {
            chain.validate(attrs).await?;
        }
        Ok(())
    }
}
