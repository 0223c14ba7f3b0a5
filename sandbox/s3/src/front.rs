//! What stands between the connections and the protocol layer: where a dialect answers by itself, or alters what
//! passes, as a proxy does.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use s3s::dto::StreamingBlob;
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpResponse};

use crate::asked::Asked;
use crate::bend::bend;
use crate::framing;
use crate::receive::drain;
use crate::refusal::refusal;
use crate::stats::counted;
use crate::store::Store;

/// Serves a request. One that is answered here is counted, and its body is read, as when a fault refuses it.
pub(crate) async fn serve(
    store: &Arc<Store>,
    service: &S3Service,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpError> {
    let asked = Asked::new(request.method(), request.uri(), request.headers());
    let request = request.map(Body::from);
    if let Some(refusal) = refusal(store, &asked, request.headers()) {
        store.stats.request(asked.op);
        drain(Some(StreamingBlob::from(request.into_body()))).await;
        return Ok(refusal.answer(asked.head));
    }
    let (request, verdict) = framing::prepare(store, request).await;
    let uncounted = store.config.is_uncounted(&asked.key);
    let mut answer = counted(!uncounted, service.call(request)).await?;
    if let Some(refusal) = verdict.get() {
        answer = refusal.clone().answer(asked.head);
    }
    bend(store, &mut answer);
    Ok(answer)
}
