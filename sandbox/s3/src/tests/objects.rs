//! Objects, their ranges and checksums.

use std::collections::BTreeMap;

use crate::checksum::Kind;
use crate::testing::{BUCKET, Body, Client, checksum, start};

const KEY: &str = "/lhsm-sandbox/dir/object";

fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn what_is_put_is_what_is_got() {
    let client = start(|_| {}).await;
    let headers = [
        ("x-amz-meta-fid", "0x1"),
        ("content-type", "text/plain"),
        ("x-amz-storage-class", "STANDARD_IA"),
    ];
    let put = client
        .send("PUT", KEY, &headers, Body::Plain(b"0123456789"))
        .await
        .assert_ok();
    assert_eq!(put.header("etag"), "\"781e5e245d69b566979b86e28d23f2c7\"");
    for method in ["GET", "HEAD"] {
        let reply = client.send(method, KEY, &[], Body::Plain(b"")).await.assert_ok();
        assert_eq!(reply.header("etag"), put.header("etag"));
        assert_eq!(reply.header("content-length"), "10");
        assert_eq!(reply.header("content-type"), "text/plain");
        assert_eq!(reply.header("x-amz-meta-fid"), "0x1");
        assert_eq!(reply.header("x-amz-storage-class"), "STANDARD_IA");
        assert_eq!(reply.header("x-amz-checksum-crc64nvme"), "");
        assert_eq!(reply.body, if method == "GET" { &b"0123456789"[..] } else { b"" });
    }
    client.delete(KEY).await.assert_ok();
    assert_eq!(client.get(KEY).await.outcome(), outcome(404, "NoSuchKey"));
    assert_eq!(
        client.get("/other-bucket/key").await.outcome(),
        outcome(404, "NoSuchBucket")
    );
    let stats = client.server.stats();
    assert_eq!(
        (
            stats.count("GetObject"),
            stats.count("PutObject"),
            stats.bytes_in,
            stats.bytes_out
        ),
        (3, 1, 10, 10)
    );
}

#[tokio::test]
async fn ranges_of_small_and_large_objects() {
    let client = start(|_| {}).await;
    for size in [10_000_usize, 1_000_000] {
        let body: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
        client.put(KEY, &body).await.assert_ok();
        assert_eq!(client.get(KEY).await.body, body);
        for (range, start, end) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=777-8888".to_owned(), 777, 8889),
            (format!("bytes=5-{}", size * 2), 5, size),
            ("bytes=9000-".to_owned(), 9000, size),
            ("bytes=-100".to_owned(), size - 100, size),
        ] {
            let reply = client.send("GET", KEY, &[("range", &range)], Body::Plain(b"")).await;
            assert_eq!(reply.status, 206);
            assert_eq!(
                reply.header("content-range"),
                format!("bytes {start}-{}/{size}", end - 1)
            );
            assert_eq!(reply.body, &body[start..end]);
        }
        let reply = client
            .send("GET", KEY, &[("range", &format!("bytes={size}-"))], Body::Plain(b""))
            .await;
        assert_eq!(reply.outcome(), outcome(416, "InvalidRange"));
    }
    client.put(KEY, b"").await.assert_ok();
    assert_eq!(client.get(KEY).await.assert_ok().body, b"");
}

#[tokio::test]
async fn checksums_in_headers_and_trailers() {
    let client = start(|_| {}).await;
    let body = b"some bytes";
    for kind in Kind::ALL {
        let right = checksum(kind, body);
        let wrong = checksum(kind, b"others");
        let header = async |text: &str| {
            client
                .send("PUT", KEY, &[(kind.header(), text)], Body::Plain(body))
                .await
        };
        let trailer = async |text: &str| client.send("PUT", KEY, &[], Body::Trailer(body, kind, text)).await;
        assert_eq!(header(&wrong).await.outcome(), outcome(400, "BadDigest"));
        assert_eq!(trailer(&wrong).await.outcome(), outcome(400, "BadDigest"));
        assert!(
            client.server.objects("lhsm-sandbox").is_empty(),
            "a refused body leaves nothing"
        );
        for put in [header(&right).await.assert_ok(), trailer(&right).await.assert_ok()] {
            assert_eq!(put.header(kind.header()), right);
            assert_eq!(put.header("x-amz-checksum-type"), "FULL_OBJECT");
        }
        let mode = ("x-amz-checksum-mode", "ENABLED");
        let reply = client.send("GET", KEY, &[mode], Body::Plain(b"")).await.assert_ok();
        assert_eq!((reply.header(kind.header()), &reply.body[..]), (&right[..], &body[..]));
        let reply = client
            .send("GET", KEY, &[mode, ("range", "bytes=1-2")], Body::Plain(b""))
            .await
            .assert_ok();
        assert_eq!(reply.header(kind.header()), "");
        client.delete(KEY).await.assert_ok();
    }
}

#[tokio::test]
async fn an_older_store_ignores_crc64nvme() {
    let client = start(|config| config.full_object_checksums = false).await;
    let wrong = checksum(Kind::Crc64Nvme, b"others");
    let header = (Kind::Crc64Nvme.header(), &wrong[..]);
    let put = client
        .send("PUT", KEY, &[header], Body::Plain(b"body"))
        .await
        .assert_ok();
    assert_eq!(put.header(header.0), "");
    let reply = client
        .send("HEAD", KEY, &[("x-amz-checksum-mode", "ENABLED")], Body::Plain(b""))
        .await
        .assert_ok();
    assert_eq!((reply.header(header.0), reply.header("x-amz-checksum-type")), ("", ""));
}

#[tokio::test]
async fn keys_are_checked() {
    let client = start(|_| {}).await;
    let unknown = Client {
        access: "nobody".to_owned(),
        ..client.clone()
    };
    assert_eq!(unknown.get(BUCKET).await.outcome(), outcome(403, "InvalidAccessKeyId"));
    let forged = Client {
        secret: "guess".to_owned(),
        ..client.clone()
    };
    assert_eq!(
        forged.get(BUCKET).await.outcome(),
        outcome(403, "SignatureDoesNotMatch")
    );
    assert!(client.server.stats().requests.is_empty());
}

#[tokio::test]
async fn files_go_with_their_objects() {
    let parent = tempfile::tempdir().unwrap();
    let client = start(|config| config.data_dir = Some(parent.path().to_owned())).await;
    let dir = parent.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let files = || dir.read_dir().unwrap().count();
    let large = vec![1; 200_000];
    client.put(KEY, &large).await.assert_ok();
    client.put(KEY, &large).await.assert_ok();
    assert_eq!(files(), 1);
    client
        .send("PUT", KEY, &[("content-md5", "AAAA")], Body::Plain(&large))
        .await;
    assert_eq!(files(), 1);
    assert_eq!(client.server.object_body("lhsm-sandbox", "dir/object"), Some(large));
    client.put(KEY, b"small").await.assert_ok();
    assert_eq!(files(), 0);
    client.server.stop().await;
}

#[tokio::test]
async fn the_back_door_and_copies() {
    let client = start(|_| {}).await;
    let metadata = BTreeMap::from([("fid".to_owned(), "0x2".to_owned())]);
    client.server.put("lhsm-sandbox", "a", &b"body"[..], metadata.clone());
    let source = ("x-amz-copy-source", "/lhsm-sandbox/a");
    client
        .send("PUT", "/lhsm-sandbox/b", &[source], Body::Plain(b""))
        .await
        .assert_ok();
    let replace = [
        source,
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-meta-other", "1"),
    ];
    client
        .send("PUT", "/lhsm-sandbox/c", &replace, Body::Plain(b""))
        .await
        .assert_ok();
    assert!(client.server.delete("lhsm-sandbox", "a"));
    assert!(!client.server.delete("lhsm-sandbox", "a"));
    let objects = client.server.objects("lhsm-sandbox");
    assert_eq!(
        objects.iter().map(|object| &object.key[..]).collect::<Vec<_>>(),
        ["b", "c"]
    );
    assert_eq!(objects[0].metadata, metadata);
    assert_eq!(
        objects[1].metadata,
        BTreeMap::from([("other".to_owned(), "1".to_owned())])
    );
    assert_eq!(client.get("/lhsm-sandbox/b").await.assert_ok().body, b"body");
}
