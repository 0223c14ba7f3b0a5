//! Dialects that refuse requests or bend answers: there when they are on, and S3's answer when they are off.

use std::collections::{BTreeMap, BTreeSet};

use crate::Dialect;
use crate::checksum::Kind;
use crate::testing::{Body, Client, checksum, start};

use super::uploads::Upload;

/// Of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];

const KEY: &str = "/lhsm-sandbox/key";

fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn with_object(body: &[u8]) -> Client {
    let client = start(|_| {}).await;
    client.server.put("lhsm-sandbox", "key", body.to_vec(), BTreeMap::new());
    client
}

#[test]
fn each_has_a_name_of_its_own_and_a_sentence() {
    let names: BTreeSet<&str> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
    assert_eq!(names.len(), Dialect::ALL.len());
    assert!(names.len() >= 30);
    for dialect in Dialect::ALL {
        let kebab = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(dialect.name().bytes().all(kebab), "{}", dialect.name());
        assert!(dialect.about().ends_with('.'), "{}", dialect.name());
    }
}

#[tokio::test]
async fn requests_are_refused_while_a_dialect_is_on() {
    let rows: [(Dialect, Headers<'_>, u16, &str); 10] = [
        (
            Dialect::NotImplementedTagging,
            &[("x-amz-tagging", "a=b")],
            501,
            "NotImplemented",
        ),
        (
            Dialect::NotImplementedAcl,
            &[("x-amz-acl", "private")],
            501,
            "NotImplemented",
        ),
        (
            Dialect::NoConditions501,
            &[("if-none-match", "*")],
            501,
            "NotImplemented",
        ),
        (
            Dialect::ChecksumMode400,
            &[("x-amz-checksum-mode", "ENABLED")],
            400,
            "InvalidArgument",
        ),
        (Dialect::RequesterPays, &[], 403, "AccessDenied"),
        (Dialect::TimeSkewed400, &[], 403, "RequestTimeTooSkewed"),
        (Dialect::WrongRegion301, &[], 301, "PermanentRedirect"),
        (Dialect::WrongRegion400, &[], 400, "AuthorizationHeaderMalformed"),
        (Dialect::HtmlAnswers, &[], 200, ""),
        (Dialect::HtmlGateway, &[], 502, ""),
    ];
    let client = start(|_| {}).await;
    for (dialect, headers, status, code) in rows {
        client.server.dialects().set(&[dialect]);
        let put = client.send("PUT", KEY, headers, Body::Plain(b"body")).await;
        assert_eq!(put.outcome(), outcome(status, code), "{dialect:?}");
        assert!(client.server.objects("lhsm-sandbox").is_empty(), "{dialect:?}");
        client.server.dialects().clear();
        client.send("PUT", KEY, headers, Body::Plain(b"body")).await.assert_ok();
        client.delete(KEY).await.assert_ok();
    }
}

#[tokio::test]
async fn what_is_refused_in_front_is_counted_and_a_large_body_is_read() {
    let client = with_object(b"body").await;
    client.server.dialects().set(&[Dialect::HtmlGateway]);
    let large = vec![0; 5_000_000];
    assert_eq!(client.put(KEY, &large).await.status, 502);
    assert_eq!(client.server.stats().count("PutObject"), 1);
    client.server.faults().clear();
    assert!(client.server.dialects().has(Dialect::HtmlGateway), "faults are apart");
}

#[tokio::test]
async fn a_proxy_answers_everything_with_a_page() {
    let client = with_object(b"body").await;
    client.server.dialects().set(&[Dialect::HtmlAnswers]);
    for (method, target) in [
        ("GET", KEY),
        ("HEAD", KEY),
        ("PUT", KEY),
        ("DELETE", KEY),
        ("GET", "/lhsm-sandbox?list-type=2"),
    ] {
        let reply = client.send(method, target, &[], Body::Plain(b"")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/html"));
        assert_eq!(reply.body.starts_with(b"<html>"), method != "HEAD");
    }
    assert_eq!(client.server.object_body("lhsm-sandbox", "key").unwrap(), b"body");
}

#[tokio::test]
async fn a_list_is_another_document_and_errors_have_no_body() {
    let client = with_object(b"body").await;
    client
        .server
        .dialects()
        .set(&[Dialect::EmptyListXml, Dialect::NoBodyErrors]);
    let list = client.get("/lhsm-sandbox?list-type=2").await.assert_ok();
    assert_eq!((list.all("Key").len(), list.all("Buckets").len()), (0, 1));
    let absent = client.get("/lhsm-sandbox/absent").await;
    assert_eq!((absent.status, absent.body.len()), (404, 0));
    client.server.dialects().clear();
    assert_eq!(client.get("/lhsm-sandbox?list-type=2").await.all("Key"), ["key"]);
    assert_eq!(
        client.get("/lhsm-sandbox/absent").await.outcome(),
        outcome(404, "NoSuchKey")
    );
}

#[tokio::test]
async fn regions_are_named_and_the_right_one_is_served() {
    let client = with_object(b"body").await;
    client.server.dialects().set(&[Dialect::WrongRegion301]);
    client.server.set_region("eu-west-3");
    let head = client.send("HEAD", KEY, &[], Body::Plain(b"")).await;
    assert_eq!((head.status, head.header("x-amz-bucket-region")), (301, "eu-west-3"));
    client.server.dialects().set(&[Dialect::WrongRegion400]);
    assert_eq!(client.get(KEY).await.element("Region"), "eu-west-3");
    client.server.set_region("us-east-1");
    client.get(KEY).await.assert_ok();
}

#[tokio::test]
async fn who_pays_is_served() {
    let client = with_object(b"body").await;
    client.server.dialects().set(&[Dialect::RequesterPays]);
    let payer = [("x-amz-request-payer", "requester")];
    client.send("GET", KEY, &payer, Body::Plain(b"")).await.assert_ok();
    assert_eq!(client.get(KEY).await.outcome(), outcome(403, "AccessDenied"));
}

#[tokio::test]
async fn old_keys_and_tokens_have_expired() {
    let client = with_object(b"body").await;
    client.server.dialects().set(&[Dialect::TokenExpired400]);
    client.get(KEY).await.assert_ok();
    client.server.expire_token("old");
    let token = [("x-amz-security-token", "old")];
    let get = client.send("GET", KEY, &token, Body::Plain(b"")).await;
    assert_eq!(get.outcome(), outcome(400, "ExpiredToken"));
    client.server.expire_token(&client.access);
    let head = client.send("HEAD", KEY, &[], Body::Plain(b"")).await;
    assert_eq!((head.status, head.body.len()), (400, 0));
    assert_eq!(client.get(KEY).await.outcome(), outcome(400, "ExpiredToken"));
    client.server.dialects().set(&[Dialect::TimeSkewed400]);
    let head = client.send("HEAD", KEY, &[], Body::Plain(b"")).await;
    assert_eq!((head.status, head.body.len()), (400, 0));
}

#[tokio::test]
async fn one_key_is_denied() {
    let client = with_object(b"body").await;
    client.put("/lhsm-sandbox/other", b"body").await.assert_ok();
    client.server.deny("lhsm-sandbox", "key");
    assert_eq!(client.get(KEY).await.outcome(), outcome(403, "AccessDenied"));
    let head = client.send("HEAD", KEY, &[], Body::Plain(b"")).await;
    assert_eq!((head.status, head.body.len()), (403, 0));
    client.get("/lhsm-sandbox/other").await.assert_ok();
    client.server.allow("lhsm-sandbox", "key");
    client.get(KEY).await.assert_ok();
}

#[tokio::test]
async fn chunked_bodies_are_refused_or_their_chunks_limited() {
    let client = start(|_| {}).await;
    let body = vec![7; 20_000];
    for (dialect, status, code) in [
        (Dialect::ChunkedRefused501, 501, "NotImplemented"),
        (Dialect::ChunkedRefused400, 400, "InvalidArgument"),
        (Dialect::TrailingChecksum400, 400, "InvalidRequest"),
        (Dialect::ChunkLimitedSmall, 400, "InvalidChunkSizeError"),
    ] {
        let put = async || client.send("PUT", KEY, &[], Body::Pieces(&body, 8_000)).await;
        client.server.dialects().set(&[dialect]);
        assert_eq!(put().await.outcome(), outcome(status, code), "{dialect:?}");
        client.put(KEY, &body).await.assert_ok();
        client.server.dialects().clear();
        put().await.assert_ok();
    }
    client.server.dialects().set(&[Dialect::ChunkLimitedSmall]);
    client
        .send("PUT", KEY, &[], Body::Pieces(&body, 8_192))
        .await
        .assert_ok();
}

#[tokio::test]
async fn a_chunk_of_more_than_16_mib_is_refused() {
    let client = start(|_| {}).await;
    let body = vec![7; 16 * 1024 * 1024 + 1];
    let text = checksum(Kind::Crc64Nvme, &body);
    client.server.dialects().set(&[Dialect::ChunkLimited16MiB]);
    let one = Body::Trailer(&body, Kind::Crc64Nvme, &text);
    assert_eq!(
        client.send("PUT", KEY, &[], one).await.outcome(),
        outcome(400, "InvalidRequest")
    );
    assert!(client.server.objects("lhsm-sandbox").is_empty());
    client
        .send("PUT", KEY, &[], Body::Pieces(&body, 16 * 1024 * 1024))
        .await
        .assert_ok();
    client.server.dialects().clear();
    let one = Body::Trailer(&body, Kind::Crc64Nvme, &text);
    client.send("PUT", KEY, &[], one).await.assert_ok();
}

#[tokio::test]
async fn the_framing_of_a_body_is_kept() {
    let client = start(|_| {}).await;
    client.server.dialects().set(&[Dialect::ChunkedKept]);
    let text = checksum(Kind::Crc64Nvme, b"body");
    let framed = format!("4\r\nbody\r\n0\r\nx-amz-checksum-crc64nvme:{text}\r\n\r\n");
    let trailer = || Body::Trailer(b"body", Kind::Crc64Nvme, &text);
    let put = client.send("PUT", KEY, &[], trailer()).await.assert_ok();
    assert_eq!(put.header("x-amz-checksum-crc64nvme"), "");
    assert_eq!(client.get(KEY).await.assert_ok().body, framed.as_bytes());

    let mut upload = Upload::create(&client, &[("x-amz-checksum-algorithm", "CRC64NVME")]).await;
    let target = format!("/lhsm-sandbox/large?partNumber=1&uploadId={}", upload.id);
    let part = client.send("PUT", &target, &[], trailer()).await.assert_ok();
    upload.parts.push((1, part.header("etag").to_owned()));
    let claimed = [("x-amz-checksum-crc64nvme", &text[..]), ("x-amz-mp-object-size", "4")];
    upload.complete(&claimed).await.assert_ok();
    assert_eq!(
        client.server.object_body("lhsm-sandbox", "large").unwrap(),
        framed.as_bytes()
    );

    client.server.dialects().clear();
    client.send("PUT", KEY, &[], trailer()).await.assert_ok();
    let got = client.get(KEY).await.assert_ok();
    assert_eq!((&got.body[..], got.header("content-encoding")), (&b"body"[..], ""));
}
