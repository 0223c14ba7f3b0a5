//! Dialects of ranges, encodings, ETags, conditions, checksums and metadata.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Dialect;
use crate::checksum::Kind;
use crate::testing::{Body, Client, Reply, checksum, start};

use super::uploads::Upload;

/// Of a request.
type Headers<'a> = &'a [(&'a str, &'a str)];

const KEY: &str = "/lhsm-sandbox/key";
const MIB: usize = 1024 * 1024;
const SUM: &str = "x-amz-checksum-crc64nvme";

async fn with_object(body: &[u8]) -> Client {
    let client = start(|_| {}).await;
    client.server.put("lhsm-sandbox", "key", body.to_vec(), BTreeMap::new());
    client
}

async fn send(client: &Client, method: &str, headers: &[(&str, &str)]) -> Reply {
    client.send(method, KEY, headers, Body::Plain(b"")).await
}

#[tokio::test]
async fn a_range_is_ignored_or_shifted() {
    let client = with_object(b"0123456789").await;
    let range = [("range", "bytes=3-5")];
    for (dialect, status, content_range, length, body) in [
        (Dialect::RangeIgnored, 200, "", "", "0123456789"),
        (Dialect::RangeIgnoredWithLength, 200, "", "10", "0123456789"),
        (Dialect::RangeShifted, 206, "bytes 0-2/10", "3", "012"),
    ] {
        client.server.dialects().set(&[dialect]);
        let reply = send(&client, "GET", &range).await;
        assert_eq!((reply.status, reply.header("content-range")), (status, content_range));
        assert_eq!(reply.header("content-length"), length);
        assert_eq!(reply.header("transfer-encoding") == "chunked", length.is_empty());
        assert_eq!(reply.body, body.as_bytes());
        assert_eq!(client.get(KEY).await.header("content-length"), "10");
    }
    client.server.dialects().clear();
    let reply = send(&client, "GET", &range).await;
    assert_eq!((reply.status, reply.header("content-range")), (206, "bytes 3-5/10"));
    assert_eq!(reply.body, b"345");
}

#[tokio::test]
async fn a_compressed_object_is_sent_decompressed() {
    let plain = b"the same again, ".repeat(20_000);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let client = start(|_| {}).await;
    client
        .server
        .put_encoded("lhsm-sandbox", "key", packed.clone(), BTreeMap::new(), "gzip");
    let identity = [("accept-encoding", "identity")];
    let rows: [(&[Dialect], Headers<'_>, bool); 4] = [
        (&[], &[], false),
        (&[Dialect::Gunzipped], &[], true),
        (&[Dialect::Gunzipped], &identity, false),
        (&[Dialect::GunzippedAlways], &identity, true),
    ];
    for (dialects, headers, unpacked) in rows {
        client.server.dialects().set(dialects);
        let reply = send(&client, "GET", headers).await.assert_ok();
        let expected = if unpacked { &plain } else { &packed };
        assert!(reply.body == *expected, "{dialects:?} {headers:?}");
        assert_eq!(reply.header("content-encoding"), if unpacked { "" } else { "gzip" });
        assert_eq!(reply.header("content-length").is_empty(), unpacked);
        let head = send(&client, "HEAD", &[]).await;
        assert_eq!(head.header("content-length"), packed.len().to_string());
    }
}

#[tokio::test]
async fn etags_have_other_forms_and_are_understood_in_them() {
    let client = start(|_| {}).await;
    let right = "\"781e5e245d69b566979b86e28d23f2c7\"";
    let put = async || {
        client
            .put(KEY, b"0123456789")
            .await
            .assert_ok()
            .header("etag")
            .to_owned()
    };
    assert_eq!(put().await, right);
    let forms = [
        (Dialect::ETagBare, right.trim_matches('"').to_owned()),
        (Dialect::ETagUpper, right.to_uppercase()),
        (Dialect::ETagWeak, format!("W/{right}")),
    ];
    for (dialect, expected) in forms {
        client.server.dialects().set(&[dialect]);
        assert_eq!(put().await, expected);
        assert_eq!(send(&client, "HEAD", &[]).await.header("etag"), expected);
        let list = client.get("/lhsm-sandbox?list-type=2").await;
        assert_eq!(list.element("ETag"), expected);
    }
    for dialect in [
        Dialect::ETagOpaque,
        Dialect::ETagUpper,
        Dialect::ETagBare,
        Dialect::DirectoryBucket,
    ] {
        client.server.dialects().set(&[dialect]);
        let shown = put().await;
        assert_ne!(shown, right);
        send(&client, "GET", &[("if-match", &shown)]).await.assert_ok();
        send(&client, "PUT", &[("if-match", &shown)]).await.assert_ok();
        assert_eq!(send(&client, "PUT", &[("if-match", &shown)]).await.status, 412);
        let mut upload = Upload::create(&client, &[]).await;
        upload.part(1, b"part").await;
        upload.complete(&[]).await.assert_ok();
    }
}

#[tokio::test]
async fn if_match_is_wanted_bare() {
    let client = with_object(b"body").await;
    let quoted = send(&client, "HEAD", &[]).await.header("etag").to_owned();
    let bare = quoted.trim_matches('"').to_owned();
    let copy = async |etag: &str| {
        let headers = [
            ("x-amz-copy-source", "/lhsm-sandbox/key"),
            ("x-amz-copy-source-if-match", etag),
        ];
        let target = "/lhsm-sandbox/copy";
        client.send("PUT", target, &headers, Body::Plain(b"")).await.status
    };
    client.server.dialects().set(&[Dialect::IfMatchBare]);
    assert_eq!((copy(&quoted).await, copy(&bare).await), (412, 200));
    for method in ["GET", "PUT", "DELETE"] {
        let wanted = send(&client, "HEAD", &[])
            .await
            .header("etag")
            .trim_matches('"')
            .to_owned();
        let quoted = format!("\"{wanted}\"");
        assert_eq!(
            send(&client, method, &[("if-match", &quoted)]).await.status,
            412,
            "{method}"
        );
        send(&client, method, &[("if-match", &wanted)]).await.assert_ok();
    }
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"part").await;
    upload.complete(&[]).await.assert_ok();
    let etag = client.get("/lhsm-sandbox/large").await.header("etag").to_owned();
    let mut upload = Upload::create(&client, &[]).await;
    upload.part(1, b"part").await;
    assert_eq!(upload.complete(&[("if-match", &etag)]).await.status, 412);
    let bare = etag.trim_matches('"');
    upload.complete(&[("if-match", bare)]).await.assert_ok();
}

/// Which conditions that do not hold are heeded: on PUT, on `CompleteMultipartUpload`, on DELETE.
async fn heeded(client: &Client) -> [bool; 3] {
    client.put(KEY, b"body").await.assert_ok();
    client.put("/lhsm-sandbox/large", b"body").await.assert_ok();
    let put = send(client, "PUT", &[("if-none-match", "*")]).await.status;
    let mut upload = Upload::create(client, &[]).await;
    upload.part(1, b"part").await;
    let complete = upload.complete(&[("if-match", "\"00\"")]).await.status;
    let delete = send(client, "DELETE", &[("if-match", "\"00\"")]).await.status;
    [put, complete, delete].map(|status| {
        assert!([200, 204, 412].contains(&status), "{status}");
        status == 412
    })
}

#[tokio::test]
async fn conditions_are_ignored_everywhere_or_in_places() {
    let client = start(|_| {}).await;
    assert_eq!(heeded(&client).await, [true, true, true]);
    for (dialect, expected) in [
        (Dialect::ConditionsIgnored, [false, false, false]),
        (Dialect::ConditionsIgnoredOnComplete, [true, false, true]),
        (Dialect::ConditionsIgnoredOnDelete, [true, true, false]),
    ] {
        client.server.dialects().set(&[dialect]);
        assert_eq!(heeded(&client).await, expected, "{dialect:?}");
    }
}

#[tokio::test]
async fn conditions_of_copies_are_ignored() {
    let client = with_object(b"body").await;
    for condition in [("x-amz-copy-source-if-match", "\"00\""), ("if-none-match", "*")] {
        let headers = [("x-amz-copy-source", "/lhsm-sandbox/key"), condition];
        assert_eq!(send(&client, "PUT", &headers).await.status, 412, "{condition:?}");
        client.server.dialects().set(&[Dialect::CopyConditionsIgnored]);
        send(&client, "PUT", &headers).await.assert_ok();
        client.server.dialects().clear();
    }
}

#[tokio::test]
async fn checksums_are_unknown_or_not_told() {
    let client = start(|_| {}).await;
    let (right, wrong) = (checksum(Kind::Crc64Nvme, b"body"), checksum(Kind::Crc64Nvme, b"other"));
    let put = async |text: &str| client.send("PUT", KEY, &[(SUM, text)], Body::Plain(b"body")).await;
    let mode = [("x-amz-checksum-mode", "ENABLED")];
    assert_eq!(put(&wrong).await.status, 400);
    put(&right).await.assert_ok();
    assert_eq!(send(&client, "HEAD", &mode).await.header(SUM), right);
    client.server.dialects().set(&[Dialect::ChecksumDropped]);
    assert_eq!(send(&client, "HEAD", &mode).await.header(SUM), "");
    assert_eq!(send(&client, "GET", &mode).await.header(SUM), right);
    client.server.dialects().set(&[Dialect::NoChecksums]);
    assert_eq!(send(&client, "HEAD", &mode).await.header(SUM), "");
    assert_eq!(put(&wrong).await.assert_ok().header(SUM), "");
    assert_eq!(send(&client, "GET", &mode).await.header(SUM), "");
}

#[tokio::test]
async fn a_multipart_checksum_is_always_composite() {
    let client = start(|_| {}).await;
    let asked = [
        ("x-amz-checksum-algorithm", "CRC64NVME"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ];
    let text = checksum(Kind::Crc64Nvme, b"part");
    let claimed = [(SUM, &text[..]), ("x-amz-checksum-type", "FULL_OBJECT")];
    let rows: [(&[Dialect], &str, &str); 2] = [
        (&[], "FULL_OBJECT", "="),
        (&[Dialect::CompositeOnly], "COMPOSITE", "-1"),
    ];
    for (dialects, expected, ending) in rows {
        client.server.dialects().set(dialects);
        let mut upload = Upload::create(&client, &asked).await;
        upload.part(1, b"part").await;
        let reply = upload.complete(&claimed).await.assert_ok();
        assert_eq!(reply.element("ChecksumType"), expected);
        assert!(reply.element("ChecksumCRC64NVME").ends_with(ending));
    }
}

#[tokio::test]
async fn parts_are_told_by_number_and_by_attributes() {
    let client = start(|_| {}).await;
    let asked = [
        ("x-amz-checksum-algorithm", "CRC32C"),
        ("x-amz-checksum-type", "COMPOSITE"),
    ];
    let mut upload = Upload::create(&client, &asked).await;
    let parts = [vec![1; 5 * MIB], b"0123456789".to_vec()];
    for (number, part) in (1..).zip(&parts) {
        let text = checksum(Kind::Crc32c, part);
        let target = format!("/lhsm-sandbox/large?partNumber={number}&uploadId={}", upload.id);
        let body = Body::Trailer(part, Kind::Crc32c, &text);
        let reply = client.send("PUT", &target, &[], body).await.assert_ok();
        upload.parts.push((number, reply.header("etag").to_owned()));
    }
    upload.complete(&[]).await.assert_ok();
    let last = checksum(Kind::Crc32c, &parts[1]);
    for method in ["HEAD", "GET"] {
        let mode = [("x-amz-checksum-mode", "ENABLED")];
        let target = "/lhsm-sandbox/large?partNumber=2";
        let reply = client.send(method, target, &mode, Body::Plain(b"")).await;
        assert_eq!((reply.status, reply.header("content-length")), (206, "10"), "{method}");
        assert_eq!(reply.header("content-range"), "bytes 5242880-5242889/5242890");
        assert_eq!(reply.header("x-amz-mp-parts-count"), "2");
        assert_eq!(reply.header("x-amz-checksum-crc32c"), last);
    }
    let absent = client.get("/lhsm-sandbox/large?partNumber=3").await;
    assert_eq!(absent.outcome(), (416, "InvalidPartNumber".to_owned()));
    let wanted = [("x-amz-object-attributes", "ETag,Checksum,ObjectParts,ObjectSize")];
    let target = "/lhsm-sandbox/large?attributes=";
    let reply = client.send("GET", target, &wanted, Body::Plain(b"")).await.assert_ok();
    assert_eq!(reply.all("Size"), ["5242880", "10"]);
    assert_eq!(reply.element("ObjectSize"), "5242890");
    assert_eq!(reply.all("ChecksumCRC32C").len(), 3);
    assert!(reply.all("ChecksumCRC32C").contains(&last));
}

#[tokio::test]
async fn the_back_door_puts_what_an_upload_would_have_made() {
    let client = start(|_| {}).await;
    let parts = [vec![1; 5 * MIB], b"0123456789".to_vec()];
    let asked = [
        ("x-amz-checksum-algorithm", "CRC64NVME"),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ];
    let mut upload = Upload::create(&client, &asked).await;
    for (number, part) in (1..).zip(&parts) {
        upload.part(number, part).await;
    }
    upload.complete(&[]).await.assert_ok();
    let mode = [("x-amz-checksum-mode", "ENABLED")];
    let target = "/lhsm-sandbox/large";
    let head = async || client.send("HEAD", target, &mode, Body::Plain(b"")).await;
    let shown = |reply: &Reply| ["etag", SUM, "content-length"].map(|name| reply.header(name).to_owned());
    let uploaded = shown(&head().await);
    let parts = [&parts[0][..], &parts[1][..]];
    client.server.put_parts("lhsm-sandbox", "large", &parts, None);
    assert_eq!(shown(&head().await), uploaded);
    client.server.put_parts("lhsm-sandbox", "large", &parts, Some("SHA256"));
    assert!(head().await.header("x-amz-checksum-sha256").ends_with("-2"));
    assert!(client.get(target).await.body == parts.concat());
}

#[tokio::test]
async fn metadata_need_not_be_utf_8() {
    let client = with_object(b"body").await;
    client
        .server
        .put_raw_metadata("lhsm-sandbox", "raw", &b"body"[..], &[("name", &b"caf\xe9"[..])]);
    for method in ["GET", "HEAD"] {
        let raw = client.send(method, "/lhsm-sandbox/raw", &[], Body::Plain(b"")).await;
        assert_eq!(raw.header("x-amz-meta-name"), "caf\u{e9}");
        client.server.dialects().set(&[Dialect::MetadataLatin1]);
        assert_eq!(
            send(&client, method, &[]).await.header("x-amz-meta-author"),
            "Andr\u{e9}"
        );
        client.server.dialects().clear();
        assert_eq!(send(&client, method, &[]).await.header("x-amz-meta-author"), "");
    }
}

#[tokio::test]
async fn objects_are_about_to_expire() {
    let client = with_object(b"body").await;
    let header = async || send(&client, "HEAD", &[]).await.header("x-amz-expiration").to_owned();
    assert_eq!(header().await, "");
    client.server.dialects().set(&[Dialect::Expires]);
    assert!(header().await.contains("21 Dec 2012"));
    client.server.set_expiration("lhsm-sandbox", "other");
    assert_eq!(header().await, "", "only those that are named");
    client.server.dialects().clear();
    client.server.set_expiration("lhsm-sandbox", "key");
    let expected = "expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\", rule-id=\"old\"";
    assert_eq!(header().await, expected);
    assert_eq!(client.put(KEY, b"body").await.header("x-amz-expiration"), expected);
}
