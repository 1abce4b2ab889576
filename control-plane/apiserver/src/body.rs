//! Bodies of requests: each has a limit, and all that are in memory have one
//! together.

use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::sync::SemaphorePermit;
use triarch_api::status::Status;

use crate::connect::RequestBody;
use crate::server::{ApiServer, header};

/// Bodies are accounted in these, bytes.
pub(crate) const UNIT: usize = 4096;

impl ApiServer {
    /// Reads a body up to the limit: 413 beyond it, 429 when bodies take too
    /// much memory altogether. It is accounted for as long as `held` lives.
    pub(crate) async fn read_whole<'a>(
        &'a self,
        body: RequestBody,
        headers: &HeaderMap,
        held: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<bytes::Bytes, Status> {
        let account = |more: usize| {
            let units = u32::try_from(more.div_ceil(UNIT)).unwrap_or(u32::MAX);
            let permit = self.bodies.try_acquire_many(units).map_err(|_| self.too_many("body"))?;
            match held.as_mut() {
                Some(held) => held.merge(permit),
                None => *held = Some(permit),
            }
            Ok(())
        };
        self.read(body, headers, account).await
    }

    /// A body that [`ApiServer::read_whole`] has read.
    pub(crate) async fn read_body(&self, body: RequestBody, headers: &HeaderMap) -> Result<bytes::Bytes, Status> {
        self.read(body, headers, |_| Ok(())).await
    }

    async fn read(
        &self,
        mut body: RequestBody,
        headers: &HeaderMap,
        mut account: impl FnMut(usize) -> Result<(), Status>,
    ) -> Result<bytes::Bytes, Status> {
        let limit = self.parts.limits.body;
        let too_large = || Status::request_too_large(format!("limit is {limit}"));
        if header(headers, "content-length").parse::<usize>().is_ok_and(|n| n > limit) {
            return Err(too_large());
        }
        // Most bodies come in one piece, which is not copied.
        let (mut whole, mut pieces, mut accounted) = (bytes::Bytes::new(), bytes::BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|e| Status::bad_request(format!("the body of the request could not be read: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let len = whole.len() + pieces.len() + data.len();
            if len > limit {
                return Err(too_large());
            }
            if len > accounted {
                let more = (len - accounted).next_multiple_of(UNIT);
                account(more)?;
                accounted += more;
            }
            if whole.is_empty() && pieces.is_empty() {
                whole = data;
                continue;
            }
            if pieces.is_empty() {
                pieces.extend_from_slice(&std::mem::take(&mut whole));
            }
            pieces.extend_from_slice(&data);
        }
        Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
    }
}
